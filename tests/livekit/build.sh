#!/usr/bin/env bash
# Builds what the tests of LiveKit and MediaMTX need, from their registries: build.sh FOLDER.
#
# The folder gets `server` (LiveKit), `load` (its load client), `livekit-client.umd.js` (the client of browsers) and
# `mediamtx`. Nothing is built if the folder has them already in the wanted versions.
set -euo pipefail
mkdir -p "$1"
output=$(realpath "$1")
cd "$(dirname "$0")"
here=$PWD

export CGO_ENABLED=0
# Nothing here may change go.mod, or download another Go.
export GOFLAGS="-mod=readonly -buildvcs=false" GOTOOLCHAIN=local

scratch=$(mktemp -d)
trap 'chmod -R u+w "$scratch"; rm -rf "$scratch"' EXIT

# Runs a step and prints the time it took.
step() {
    local began=$SECONDS
    "$@"
    echo "$1: $((SECONDS - began)) s"
}

livekit() {
    go build -ldflags "-s -w" -o "$output/" ./load github.com/livekit/livekit-server/cmd/server
}

client() {
    cp package.json package-lock.json "$scratch"
    (cd "$scratch" && npm ci --ignore-scripts --omit=peer --omit=optional --no-audit --no-fund \
        --loglevel=error --omit-lockfile-registry-resolved=true)
    cp "$scratch/node_modules/livekit-client/dist/livekit-client.umd.js" "$output"
}

# MediaMTX cannot be built as its module is: two embedded files, its version and a player for HLS, are made by
# `go generate`, which downloads the player. The source is copied, and the files are written here; WebRTC needs no player.
mediamtx() {
    local module=github.com/bluenviron/mediamtx source=$scratch/mediamtx
    cd "$here/mediamtx"
    cp -R "$(go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')" "$source"
    chmod -R u+w "$source"
    sed -n "s|^require $module ||p" go.mod | tr -d '\n' >"$source/internal/core/VERSION"
    echo "// Not needed for WebRTC." >"$source/internal/servers/hls/hls.min.js"
    cd "$source"
    go build -ldflags "-s -w" -o "$output/" .
}

wanted=$(find . -type f -not -name .gitignore -print0 | sort -z | xargs -0 sha256sum | sha256sum; go version)
if [ "$wanted" != "$(cat "$output/built" 2>/dev/null)" ]; then
    rm -f "$output/built"
    step livekit
    step client
    step mediamtx
    echo "$wanted" >"$output/built"
fi
