# Every target works on a fresh Debian 12 or 13 as root: it installs what it needs with apt.

help:
	@echo 'make demo     the main job from building the packages to a psql answer, step by step'
	@echo 'make test     check, and every other test: packages, jobs, the system tests in test machines'
	@echo 'make test-long  attacks and drivers that take longer, in a test machine, and 10,000 generated requests'
	@echo 'make check    format, lint, types, unit, contract and integration tests'
	@echo 'make deb      dist/*.deb, built in a clean Debian 13 and checked with lintian'
	@echo 'make client   dist/draupnir_client-*: a wheel and a source archive of the client alone'
	@echo 'make bench    benchmarks in a test machine, also written to bench.json (docs/BENCHMARKS.md)'
	@echo 'make machine  a shell in a test machine with the packages installed'
	@echo 'make clean    remove what was built here (the cached Debian is in $${DRAUPNIR_CACHE:-/var/cache/draupnir-build})'

demo: deb
	packaging/machine run --bare -- /usr/src/draupnir/packaging/demo

# In parallel: the checks use the processor, while the build waits for downloads.
test:
	$(MAKE) --jobs=2 --output-sync=target check deb
	packaging/system-tests

test-long: check deb
	.venv/bin/pytest -o faulthandler_timeout=0 -m long tests/generated
	packaging/long-tests

check:
	packaging/check

deb:
	packaging/prepare python3
	packaging/machine build

client:
	packaging/client

# The table is printed to stderr during the measurement.
bench: deb
	packaging/machine run -- tests/bench/run --commit "$$(git describe --always --dirty)" $(BENCH) >bench.json; \
	status=$$?; cat bench.json; exit $$status

machine: deb
	packaging/machine shell

clean:
	rm -rf dist bench.json .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis draupnir.egg-info build
	find $(CURDIR) -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help demo test test-long check deb client bench machine clean
