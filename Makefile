# `make book` builds the site, `make test` checks everything. Both make .venv when it is missing or out of date.
# `make check` looks at what differs from the last commit, in a minute; what is long and rare is `make elsewhere` and
# `make nightly`. CONTRIBUTING.md says what runs where, and how long. `make book LIVE=0` leaves out Python in the pages.
PYTHON ?= python3
# Jupyter, matplotlib and npm write into the home folder; where nobody may, they get another.
ifneq ($(shell test -d "$$HOME" -a -w "$$HOME" && echo yes),yes)
export HOME := $(shell mkdir -p _build/home)$(CURDIR)/_build/home
endif
PORT ?= 8000
BIN := .venv/bin
PYTEST := pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
CORE := mdp dynamics bellman features networks updates contraction norms linearization rowwise ntk remedies saved

.PHONY: help env env-test book page check test elsewhere nightly firefox links next released serve zip print slides public changed publish wheel lab lock study bench course student gradescope clean

help:
	@echo "make book [LIVE=0] | page NAME=bellman | check | test | elsewhere | nightly | serve | zip | print | slides [NAME=bellman] | public [FREEZE=1] | changed | publish | wheel | lab | lock | study NAME=kernels | bench | course SEED=secret [ROOT=directory] | student | gradescope [NAME=bellman] [SHOW=visible] | clean     see README.md"

env:
	@$(PYTHON) tools/environment.py

# What the tests and the coursework need comes on top, so that a reader does not wait for it.
env-test:
	@$(PYTHON) tools/environment.py test

book: env
	@$(BIN)/python tools/build_book.py

page: env
	@$(BIN)/python tools/build_book.py --page "$(NAME)" --port $(PORT)

# With a Python of its own choice it tests what runs without torch, in an environment beside .venv.
GIVEN := $(if $(filter file,$(origin PYTHON)),,$(PYTHON))
check: $(if $(GIVEN),,env-test)
	@test -x $(BIN)/python || $(PYTHON) tools/environment.py test
	@$(BIN)/python tools/check.py $(GIVEN)

test: book env-test
	$(BIN)/python -m $(PYTEST)

elsewhere: env-test
	$(BIN)/python tools/another_machine.py $(PYTEST) $(wildcard $(CORE:%=tests/test_%*.py))

nightly: book env-test
	$(BIN)/python -m $(PYTEST) -m nightly
	DIVERGENCE_NOTES_SUBFOLDER=/a/b $(BIN)/python -m $(PYTEST) $(addprefix tests/site/test_,bets.py browser.py live.py moved.py)
	$(BIN)/python tools/another_machine.py $(PYTEST) book
	$(BIN)/python -m tests.judge 2000

# Needs a Firefox on the path; its driver comes with the first call.
firefox: book env-test
	@$(BIN)/python -m pip install --quiet marionette-driver
	$(BIN)/python -m $(PYTEST) -m nightly tests/site/test_firefox.py

# Asks every address outside the site that the pages lead to.
links: env
	$(BIN)/jupyter-book build . --quiet --builder linkcheck

# The way out of Jupyter Book 1: the same site from a generated conf.py on Sphinx 8, in an environment beside .venv.
next: book
	@$(BIN)/python tools/next_sphinx.py

# Fails where TAG is not the version that the files say.
released: env
	@$(BIN)/python -c "import divergence_notes as d, sys; sys.exit('$(TAG)' != 'v' + d.__version__ and 'This is version ' + d.__version__ + ', and the tag is $(TAG).')"

serve: book
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

zip: book
	@cd _build/html && ../../$(BIN)/python -m zipfile -c ../divergence-notes.zip . && echo "The site, to hand on, is in _build/divergence-notes.zip"

# The book as one PDF, typeset by the Chromium or Chrome on the path.
print: book env-test
	@$(BIN)/python tools/print_book.py

# For each chapter its figures, to be shown in a lecture: one file each, which needs no network.
slides: book
	@$(BIN)/python tools/slides.py $(NAME)

# What is published, beside what is built: _build/public. FREEZE=1 adds it as the version that it is, once and for all.
public: book
	@$(BIN)/python tools/publish.py fetch
	@$(BIN)/python tools/publish.py $(if $(FREEZE),freeze,put)

changed: book
	@$(BIN)/python tools/publish.py fetch
	@$(BIN)/python tools/publish.py changed

publish: public
	@$(BIN)/python tools/publish.py push

wheel: env
	@$(BIN)/python tools/make_wheel.py

lab: env
	$(BIN)/jupyter lab book

lock: env-test
	$(BIN)/python tools/lock.py $(if $(UPGRADE),--upgrade)

study: env
	@$(BIN)/python -m divergence_notes.studies $(if $(NAME),run $(NAME) $(OPTIONS),list)

bench:
	@$(PYTHON) benchmarks/run.py $(if $(ONLY),--only $(ONLY))

course: env-test
	@$(BIN)/python coursework/course.py $(if $(SEED),--seed $(SEED)) $(if $(ROOT),--root "$(ROOT)")

student: env-test
	@$(BIN)/python coursework/course.py --student $(if $(ROOT),--root "$(ROOT)")

gradescope: env-test
	@$(BIN)/python coursework/gradescope.py $(NAME) $(if $(SHOW),--show $(SHOW)) $(if $(ROOT),--root "$(ROOT)")

clean:
	rm -rf .venv .venv-* _build dist _offline node_modules .pytest_cache .ruff_cache .hypothesis .import_linter_cache
