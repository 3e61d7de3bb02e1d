"""A certificate authority of a test, and the certificates that it issues."""

import subprocess


class Authority:
    """An authority in a folder of its own; `certificate` is the file with its certificate."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.certificate = folder / "authority.pem"
        self._key = folder / "authority.key"
        may_issue = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
        _request("-subj", "/CN=test authority", "-keyout", self._key, "-out", self.certificate, *may_issue)

    def issue(self, name):
        """The files of a certificate for a host name, and of its key."""
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        issuer = ["-CA", self.certificate, "-CAkey", self._key]
        names = ["-addext", f"subjectAltName=DNS:{name}", "-addext", "basicConstraints=critical,CA:FALSE"]
        _request("-subj", f"/CN={name}", "-keyout", key, "-out", certificate, *issuer, *names)
        return certificate, key


def _request(*options):
    """Makes a key and a certificate."""
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "10"]
    subprocess.run(["openssl", "req", "-x509", *kind, *options], check=True, capture_output=True)
