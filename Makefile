export OMP_NUM_THREADS ?= 1
.PHONY: export test clean readme docs check imports

export:          # notebooks -> tamers/*.py
	nbdev_export
clean:           # take noise out of the notebooks before a commit
	nbdev_clean
readme:          # nbs/index.ipynb -> README.md and docs/figures
	python docs/site/readme.py
docs:            # the site: open _docs/index.html
	sphinx-build -q -E -W --keep-going -c docs nbs _docs
test:            # everything CI runs
	python -m pytest -n auto
check: export clean readme test   # before a commit; fails if a step changed what is committed
	git diff --exit-code

imports:         # who imports whom, wing by wing
	python -m tests.project.layout
