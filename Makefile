# `make book` builds the site, `make test` checks everything. Both make .venv when it is missing or out of date.
# `make check` looks at what differs from the last commit, in a minute; what is long and rare is `make elsewhere` and
# `make nightly`. CONTRIBUTING.md says what runs where, and how long. `make book LIVE=0` leaves out Python in the pages.
PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin
PYTEST := pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
CORE := mdp dynamics bellman features networks updates contraction norms linearization rowwise ntk remedies

.PHONY: help env book page check test elsewhere nightly serve zip lab lock study bench course student clean

help:
	@echo "make book [LIVE=0] | page NAME=bellman | check | test | elsewhere | nightly | serve | zip | lab | lock | study NAME=kernels | bench | course SEED=secret | student | clean     see README.md"

env:
	@$(PYTHON) tools/environment.py

book: env
	@$(BIN)/python tools/build_book.py

page: env
	@$(BIN)/python tools/build_book.py --page "$(NAME)" --port $(PORT)

# With a Python of its own choice it tests what runs without torch, in an environment beside .venv.
GIVEN := $(if $(filter file,$(origin PYTHON)),,$(PYTHON))
check: $(if $(GIVEN),,env)
	@test -x $(BIN)/python || $(PYTHON) tools/environment.py
	@$(BIN)/python tools/check.py $(GIVEN)

test: book
	$(BIN)/python -m $(PYTEST)

elsewhere: env
	$(BIN)/python tools/another_machine.py $(PYTEST) $(wildcard $(CORE:%=tests/test_%*.py))

nightly: book
	$(BIN)/python -m $(PYTEST) -m nightly
	$(BIN)/python tools/another_machine.py $(PYTEST) book
	$(BIN)/python -m tests.judge 2000

serve: book
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

zip: book
	@cd _build/html && ../../$(BIN)/python -m zipfile -c ../divergence-notes.zip . && echo "The site, to hand on, is in _build/divergence-notes.zip"

lab: env
	$(BIN)/jupyter lab book

lock: env
	$(BIN)/python tools/lock.py $(if $(UPGRADE),--upgrade)

study: env
	@$(BIN)/python -m divergence_notes.studies $(if $(NAME),run $(NAME) $(OPTIONS),list)

bench:
	@$(PYTHON) benchmarks/run.py $(if $(ONLY),--only $(ONLY))

course: env
	@$(BIN)/python coursework/course.py $(if $(SEED),--seed $(SEED))

student: env
	@$(BIN)/python coursework/course.py --student

clean:
	rm -rf .venv .venv-* _build _offline node_modules .pytest_cache .ruff_cache .hypothesis .import_linter_cache
