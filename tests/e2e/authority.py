"""A test certificate authority and the certificates it issues."""

import subprocess

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
RSA = ("-newkey", "rsa:2048")


class Authority:
    """A certificate authority whose files live in `folder`; `certificate` is the path of its own certificate."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.certificate = folder / "authority.pem"
        self._key = folder / "authority.key"
        may_issue = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
        _request("-subj", "/CN=test authority", "-keyout", self._key, "-out", self.certificate, *may_issue)

    def issue(self, name, *addresses, names=(), file=None, kind=EC, days=10):
        """Issues a certificate for a host name and perhaps addresses and more names; returns the paths of the certificate and of
        its key.
        """
        certificate, key = self.folder / f"{file or name}.pem", self.folder / f"{file or name}.key"
        issuer = ["-CA", self.certificate, "-CAkey", self._key]
        subjects = ",".join([*(f"DNS:{each}" for each in (name, *names)), *(f"IP:{address}" for address in addresses)])
        extensions = ["-addext", f"subjectAltName={subjects}", "-addext", "basicConstraints=critical,CA:FALSE"]
        _request("-subj", f"/CN={name}", "-keyout", key, "-out", certificate, *issuer, *extensions, kind=kind, days=days)
        return certificate, key


def _request(*options, kind=EC, days=10):
    """Creates a key and a certificate."""
    how = [*kind, "-noenc", "-days", str(days)]
    subprocess.run(["openssl", "req", "-x509", *how, *options], check=True, capture_output=True)
