"""How others check a bundle without this project: the very commands, as the bundle's README and ``docs/trust.md`` print them. A test runs what is printed.

They are run in the bundle's folder. ``KEY`` is the project's public key, had from somewhere else, and ``TOOLS`` a folder outside the bundle for npm's packages.
"""

from __future__ import annotations

SIGSTORE_PACKAGES = ("@sigstore/verify@4.1.3", "@sigstore/bundle@5.0.1")

OPENSSF = """\
model_signing verify key model/artifacts/model --signature model.sig --public_key model-signing.pub.pem
"""
IN_TOTO = """\
python - <<'END'
import json, os
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf.json_format import ParseDict
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

key = SSlibKey.from_crypto(load_pem_public_key(open(os.environ["KEY"], "rb").read()))
for name in ("statement", "test-result", "verification-summary"):
    envelope = Envelope.from_dict(json.load(open(f"{name}.dsse.json")))
    envelope.verify([key], 1)
    document = json.loads(envelope.payload)
    Statement.copy_from_pb(ParseDict(document, statement_pb2.Statement())).validate()
    print(name, "verified:", document["predicateType"])
END
"""
SIGSTORE = f"""\
npm install --ignore-scripts --no-audit --no-fund --prefix "$TOOLS" {" ".join(SIGSTORE_PACKAGES)}
NODE_PATH="$TOOLS/node_modules" node - <<'END'
const fs = require("fs"), crypto = require("crypto");
const {{ bundleFromJSON }} = require("@sigstore/bundle");
const {{ Verifier, toSignedEntity, toTrustMaterial }} = require("@sigstore/verify");

const nobody = {{ certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [] }};
const key = {{ publicKey: crypto.createPublicKey(fs.readFileSync(process.env.KEY)), validFor: () => true }};
const none = {{ ctlogThreshold: 0, tlogThreshold: 0, timestampThreshold: 0 }};
const verifier = new Verifier(toTrustMaterial(nobody, () => key), none);
for (const name of ["statement", "test-result", "verification-summary"]) {{
  verifier.verify(toSignedEntity(bundleFromJSON(JSON.parse(fs.readFileSync(`${{name}}.sigstore.json`)))));
  console.log(name, "verified");
}}
END
"""

HOW = f"""## Without Recompress

In this folder, with `KEY` naming the project's public key and `TOOLS` a folder outside of this one. The OpenSSF signature over the model's files, which lie in
`model/` of an archive that was packed with them (`pip install model-signing==1.1.1`):

```sh
{OPENSSF}```

The in-toto statements in their envelopes: SLSA provenance, the gate's verdict as a test result, the promotion as a verification summary
(`pip install securesystemslib in-toto-attestation`):

```sh
{IN_TOTO}```

The same as Sigstore bundles, with Sigstore's own JavaScript and without its transparency log:

```sh
{SIGSTORE}```
"""


def without_recompress(files: set[str]) -> str:
    """The chapter for a bundle with these files; where there is no OpenSSF signature, its command is left out."""
    if "model.sig" in files:
        return HOW
    start, rest = HOW.split(" The OpenSSF signature", 1)
    return f"{start}\n\n{rest.partition(OPENSSF + '```')[2].lstrip()}"
