#!/usr/bin/env bash
# botocore 1.44.5 runs a credential_process again before each request while its keys have under 10 minutes left.
#
# A good engineer would guess: keys near their end are refreshed once, and the new ones are used until they are near their
# end in turn; or the tool is asked again now and then. So a tool whose tokens live for 5 minutes, as those of some company
# logins do, would be run every few minutes.
#
# What happens: "near" is under 15 minutes (advisory) or 10 minutes (mandatory), whatever the keys' whole life is, and nothing
# says when the last refresh was. Keys that live for 5 minutes are always near their end: each get_frozen_credentials(), which
# botocore calls to sign each request, runs the tool and waits for it. A first request runs it twice. Tokens of SSO are
# different: botocore/tokens.py refreshes these at most once a minute.
#
# For actorsync: 200 images took 204 runs of the tool. Keys are kept with their expiry by daemon/adapters/http/identity.py,
# which refreshes them in the background, at most once a minute, and sets botocore's own two windows to 0.
#
# Needs python3 with venv, and PyPI. Exits 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q botocore==1.44.5

cat >"$folder/tool" <<'TOOL'
#!/bin/sh
echo run >>"$(dirname "$0")/runs"
expires=$(date -u -d '+5 minutes' +%Y-%m-%dT%H:%M:%SZ)
echo "{\"Version\": 1, \"AccessKeyId\": \"A\", \"SecretAccessKey\": \"B\", \"SessionToken\": \"C\", \"Expiration\": \"$expires\"}"
TOOL
chmod +x "$folder/tool"
printf '[default]\ncredential_process = %s/tool\n' "$folder" >"$folder/config"

env -i PATH="$PATH" HOME="$folder" AWS_CONFIG_FILE="$folder/config" "$folder/venv/bin/python" - "$folder/runs" <<'PYTHON'
import sys

import botocore
from botocore.session import Session

credentials = Session().get_credentials()
for _ in range(20):  # as for 20 requests
    credentials.get_frozen_credentials()
runs = len(open(sys.argv[1]).read().split())
print(f"botocore {botocore.__version__}: 20 requests within a second, keys that live for 5 minutes: the tool ran {runs} times")
sys.exit(runs != 21)
PYTHON
