# A thin front on Meson and the scripts of tools/. `make help` lists the targets.
BUILD ?= build
UNIT = $(BUILD)/unit
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 300

.PHONY: all help deps run test check check-fast bench fuzz format install clean

all: deps-build $(BUILD)/build.ninja ## build the release binary: build/sluice
	@ninja -C $(BUILD) sluice

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

deps: ## install everything that any target needs (apt)
	@tools/deps.sh all

run: ## build, start two mock workers and the gateway on 127.0.0.1:30000, show two requests
	@tools/deps.sh run
	@$(MAKE) --no-print-directory all
	@tools/run-demo $(BUILD)/sluice $(DEMO)

test: ## unit and end-to-end tests
	@tools/deps.sh test
	@$(MAKE) --no-print-directory all
	@test -f $(UNIT)/build.ninja || meson setup $(UNIT) -Dtests=enabled
	@ninja -C $(UNIT) unit-tests
	@tools/test.py --build $(BUILD) --unit-build $(UNIT) unit e2e

check-fast: ## format, floors, sizes, banned functions: seconds
	@tools/deps.sh check
	@tools/gate.py check-fast

check: ## check-fast, clang-tidy, ASan+UBSan, TSan, short fuzzing
	@tools/deps.sh check
	@tools/gate.py check-fast warnings tidy asan tsan fuzz

bench: ## compare with nginx, HAProxy, a bare relay and sglang-router
	@tools/deps.sh bench
	@$(MAKE) --no-print-directory all
	@bench/run.py $(BENCH)

fuzz: ## every harness for FUZZ_SECONDS (300) each
	@tools/deps.sh check
	@tools/gate.py --fuzz-seconds $(FUZZ_SECONDS) fuzz

format: ## rewrite all C files with clang-format
	@git ls-files -co --exclude-standard '*.c' '*.h' | xargs clang-format -i

install: all ## install into PREFIX (/usr/local); DESTDIR is honoured
	@meson configure $(BUILD) --prefix $(PREFIX)
	@ninja -C $(BUILD) sluice
	@meson install -C $(BUILD) --no-rebuild

clean: ## remove everything that was built
	@rm -rf $(BUILD) build-bench

.PHONY: deps-build
deps-build:
	@tools/deps.sh build

$(BUILD)/build.ninja: | deps-build
	@meson setup $(BUILD) -Db_lto=true
