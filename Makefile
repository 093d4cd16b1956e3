# make book and make test are all that a newcomer needs; each makes .venv by itself. `make help` lists the rest.
# (Makefile of the course "Uncertainty at Inference")

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PORT ?= 8000

# Tests run side by side, a file in one process, each with one thread.
JOBS ?= 2
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile
# What depends on how a processor adds and multiplies, and the processor that it is tried on besides the machine's own.
NUMERICAL := tests/gradients tests/detectors tests/calibration tests/uncertainty tests/attacks tests/introspection \
	tests/training tests/test_metrics.py
OLD_PROCESSOR := ATEN_CPU_CAPABILITY=default DNNL_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE

.DEFAULT_GOAL := help
.PHONY: help venv book test quick chapter emulated machines oldest gpu serve links lint format clean distclean address requirements

help: ## list what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort | awk -F '\t' '{printf "  make %-14s %s\n", $$1, $$2}'
	@echo
	@echo "TUTORIAL_STUDY=cifar10 TUTORIAL_DATA=folder make book   builds the same chapters on another study."

venv: $(STAMP) ## make .venv with the exact environment of requirements.txt

# pip runs only when one of these files is newer than the last installation. A PyTorch for CPUs that is there already stays.
$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, and $(PYTHON) is older. Name another: make PYTHON=python3.12 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if $(BIN)/python -c 'from importlib.metadata import version; assert "+cpu" in version("torch")' 2>/dev/null; \
	then grep -vE '^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==' requirements.txt; \
	else cat requirements.txt; fi > $(VENV)/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(VENV)/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

book: $(STAMP) ## run every notebook that needs it and build _build/html/index.html
	$(BIN)/python tools/build_book.py

test: $(STAMP) ## run all tests: the library, every notebook, the built book; some: make test ARGS=tests/test_metrics.py
	$(PYTEST) $(ARGS)

quick: $(STAMP) ## the tests that take a minute together: no notebook, no built book, no browser, nothing slow
	$(PYTEST) -m "not slow and not book and not browser" tutorial_lib tools tests $(ARGS)

CHAPTER = $(shell echo "$(NAME)" | sed 's/^[0-9]$$/0&/')
chapter: $(STAMP) ## build and check one chapter: make chapter NAME=08
	@test -n "$(NAME)" || { echo "say which: make chapter NAME=08"; exit 2; }
	$(BIN)/python tools/build_book.py --chapter $(CHAPTER)
	$(BIN)/python tools/make_learner.py notebooks/$(CHAPTER)*.ipynb
	TUTORIAL_BOOK_AS_BUILT=1 $(PYTEST) notebooks/$(CHAPTER)*.ipynb tests/book tests/notebooks tests/tools \
		-k "$(basename $(notdir $(wildcard notebooks/$(CHAPTER)*.ipynb)))" $(ARGS)

emulated: $(STAMP) ## the numerical tests as on an old processor, with nothing in the cache
	@cache=$$(mktemp -d) && trap 'rm -rf "$$cache"' EXIT && set -x && \
	$(OLD_PROCESSOR) TUTORIAL_CACHE="$$cache" $(PYTEST) -m "not slow" $(NUMERICAL) $(ARGS)

# The whole suite where torch, oneDNN and MKL choose other code than here, each time with nothing in the cache.
AVX2_ONLY := ATEN_CPU_CAPABILITY=avx2 DNNL_MAX_CPU_ISA=AVX2 MKL_CBWR=AVX2
PLAIN_TORCH := ATEN_CPU_CAPABILITY=default

machines: book ## the whole suite as on three other processors, one after the other (three times as long as make test)
	@for settings in "$(OLD_PROCESSOR)" "$(AVX2_ONLY)" "$(PLAIN_TORCH)"; do \
		cache=$$(mktemp -d); echo "=== $$settings"; \
		env $$settings TUTORIAL_CACHE="$$cache" $(PYTEST) $(ARGS); status=$$?; \
		rm -rf "$$cache"; [ $$status = 0 ] || exit $$status; \
	done

# The oldest torch and torchvision that pyproject.toml allows, in an environment of their own (4 GB).
OLDEST := .venv-oldest
TESTED_ON_OLDEST := tests/gradients tests/test_metrics.py tests/uncertainty tests/calibration tests/attacks tests/introspection

$(OLDEST)/.installed: pyproject.toml
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check "torch==2.6.0" "torchvision==0.21.0" -e . \
		pytest pytest-xdist hypothesis nbval torchmetrics
	@touch $@

oldest: $(OLDEST)/.installed ## the gradients and a numerical selection of the tests on the oldest supported torch
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n $(JOBS) --dist loadfile -m "not slow" $(TESTED_ON_OLDEST) $(ARGS)

gpu: $(STAMP) ## where there is a CUDA device: ten minutes of exactness, benchmark and suite; leaves rows to be committed
	$(BIN)/python tools/on_gpu.py $(ARGS)

serve: book ## show the book on localhost:8000 (another port: make serve PORT=8080)
	@echo "http://localhost:$(PORT)   (Ctrl+C to stop)"
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

links: $(STAMP) ## look whether the addresses that the book links to still answer (needs the net)
	$(BIN)/jupyter-book build --builder linkcheck .

lint: $(STAMP) ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## bring code and notebooks into their form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python tools/notebook_cells.py notebooks/*.ipynb

address: $(STAMP) ## write the address of git's origin everywhere; another: make address REPO=https://github.com/owner/name
	$(BIN)/python tools/set_address.py $(REPO)

requirements: $(STAMP) ## write requirements.txt anew, with the newest packages that fit together
	$(BIN)/python tools/pin_requirements.py

clean: ## remove what was built, keep .venv
	rm -rf _build .pytest_cache .ruff_cache .mypy_cache .hypothesis

distclean: clean ## remove .venv as well
	rm -rf $(VENV) *.egg-info

include tools/teaching.mk
