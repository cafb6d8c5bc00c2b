# Thin names for tools/dev.py, which needs nothing but Python: `python3 tools/dev.py --help`.
PYTHON ?= python3
SEED ?= 0

.PHONY: ablation demo test
demo:
	@$(PYTHON) tools/dev.py demo --seed $(SEED)
test:
	@$(PYTHON) tools/dev.py test
ablation:
	@$(PYTHON) tools/dev.py ablation $(if $(QUICK),--quick)
