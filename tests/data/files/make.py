"""How the files beside this one were made, by the datasets library itself (5.2.0, in an environment of its own), from the made-up rows of the tests:

PYTHONPATH=. python tests/data/files/make.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value  # type: ignore[import-not-found]

from tests.data.made_up import LABELS, NAMES, SPLITS, TAGGED

HERE = Path(__file__).parent
OF_TEXTS = Features({"text": Value("string"), "label": ClassLabel(names=list(LABELS))})
OF_WORDS = Features({"tokens": Sequence(Value("string")), "ner_tags": Sequence(ClassLabel(names=list(NAMES)))})


def main() -> None:
    for old in HERE.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
    called = {"train": "train", "dev": "validation", "test": "test"}
    texts = DatasetDict({called[split]: Dataset.from_list(rows, features=OF_TEXTS) for split, rows in SPLITS.items()})
    words = DatasetDict({called[split]: Dataset.from_list(rows, features=OF_WORDS) for split, rows in TAGGED.items()})
    texts.save_to_disk(HERE / "texts_on_disk", num_shards={"train": 2, "validation": 1, "test": 1})
    words.save_to_disk(HERE / "words_on_disk")
    texts["train"].save_to_disk(HERE / "one_on_disk")
    (HERE / "texts_parquet").mkdir()
    for split, data in texts.items():
        data.to_parquet(HERE / "texts_parquet" / f"{split}-00000-of-00001.parquet")
    (HERE / "words_jsonl").mkdir()
    for split, data in words.items():
        data.to_json(HERE / "words_jsonl" / f"{split}.jsonl")


if __name__ == "__main__":
    main()
