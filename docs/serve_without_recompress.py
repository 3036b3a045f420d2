"""Serve a text classifier that `recompress export … --to onnx` wrote: onnxruntime, tokenizers, standard library. python serve_without_recompress.py FOLDER PORT"""

import json
import math
import sys
import unicodedata
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import onnxruntime
import tokenizers

folder = Path(sys.argv[1])
session = onnxruntime.InferenceSession(next((folder / "onnx").glob("*.onnx")))
tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
settings, labels = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("tokenizer_config.json", "config.json"))
tokenizer.enable_truncation(settings["model_max_length"], direction=settings.get("truncation_side", "right"))


def answer(text):
    ids = tokenizer.encode(" ".join(unicodedata.normalize("NFC", text).split())).ids
    given = {"input_ids": [ids], "attention_mask": [[1] * len(ids)]}  # one text at a time, as it was judged
    [[logits]] = session.run(None, {one.name: given[one.name] for one in session.get_inputs()})
    best = int(logits.argmax())
    return {"label": labels["id2label"][str(best)], "score": 1 / sum(math.exp(logit - logits[best]) for logit in logits)}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        try:
            body, code = answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"]), 200
        except (KeyError, TypeError, ValueError):
            body, code = {"error": 'send {"text": "..."}'}, 400
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
