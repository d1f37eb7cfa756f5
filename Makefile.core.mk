# Isthmus: every target runs on a fresh Debian 12 with Go and root, and installs what it needs itself.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

export GOTOOLCHAIN := local
export GOFLAGS := -buildvcs=false
export CGO_ENABLED ?= 0

# Variables of your own, such as HUB and TAG.
-include .istiorc.mk

BIN := $(CURDIR)/bin
OUT := $(CURDIR)/out
VERSION ?= dev
REVISION := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

# Modules, in the order in which they depend on each other.
MODULES := pkg pkg/kube ztunnel waypoint pilot cni samples sandbox operator istioctl tools tests/e2e tests/e2e/apps tests/e2e/conformance
PROTOS := pkg/api/workload/workload.proto pkg/api/security/authorization.proto pkg/api/zds/zds.proto

# What `go build` puts into bin/: product binaries, then the sample workloads.
BINARIES := ./pilot/cmd/pilot-discovery ./ztunnel/cmd/ztunnel ./waypoint/cmd/waypoint ./cni/cmd/install-cni ./cni/cmd/istio-cni ./istioctl/cmd/istioctl \
	./operator/cmd/operator
SAMPLES := ./samples/bookinfo/cmd/productpage ./samples/bookinfo/cmd/details ./samples/bookinfo/cmd/reviews \
	./samples/bookinfo/cmd/ratings ./samples/httpbin/cmd/httpbin ./samples/curl/cmd/sleep ./samples/tcp-echo/cmd/tcp-echo ./samples/udp-echo/cmd/udp-echo
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.revision=$(REVISION)

# The commit whose version e2e upgrades; - is none, as in a clone without history.
UPGRADE_FROM ?= $(shell git rev-parse -q --verify HEAD~1 || echo -)
E2E_FLAGS = -artifacts $(OUT)/e2e -hub '$(HUB)' -tag '$(TAG)' $(if $(KIND_NODE_IMAGE),-image $(KIND_NODE_IMAGE)) $(if $(FAMILY),-family $(FAMILY)) $(if $(CLUSTER),-name $(CLUSTER)) $(if $(KEEP),-keep)

# Images: see docker/README.md. They are the same bytes for the same commit: everything in them bears its time.
HUB ?= docker.io/isthmus
TAG ?= $(VERSION)
VARIANT ?=
DOCKER_ARCHITECTURES ?= linux/amd64,linux/arm64
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
IMAGEBUILD = go run ./tools/cmd/imagebuild -hub '$(or $(HUBS),$(HUB))' -tag '$(TAG)' -version '$(VERSION)' -revision $(REVISION) \
	-epoch $(SOURCE_DATE_EPOCH) -variant '$(VARIANT)' -arch '$(DOCKER_ARCHITECTURES)' -out $(OUT)/images

.PHONY: help
help: ## print the targets
	@awk -F ':.*## ' '/^[a-z0-9.% -]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile.core.mk

.PHONY: deps
deps: ## install the system packages that demo and test need (Debian)
	@tools/deps.sh

.PHONY: build
build: ## build every binary into bin/
	@mkdir -p $(BIN)
	go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ $(BINARIES) $(SAMPLES)

.PHONY: demo
demo: deps build ## the mesh with Bookinfo on this machine; KEEP=1 leaves it running
	go build -trimpath -o $(OUT)/demo ./sandbox/cmd/demo
	$(OUT)/demo -bin $(BIN) -samples $(CURDIR)/samples $(if $(KEEP),-keep)

.PHONY: envoy
envoy: deps ## the real Envoy that tests compare with, in out/envoy
	@tools/envoy.sh $(OUT)/envoy

.PHONY: conformance-envoy
conformance-envoy: envoy build ## a real Envoy and our engine answer the same, both configured by our pilot
	go build -trimpath -o $(OUT)/conformance-envoy ./tools/cmd/conformance-envoy
	$(OUT)/conformance-envoy -envoy $(OUT)/envoy/envoy -bin $(BIN)

.PHONY: conformance-istiod
conformance-istiod: build ## our pilot tells ztunnels the same as Istio's, beside one API server; the first build of Istio's takes 10 minutes; RUN=… is one scenario
	go run ./tools/cmd/kindnode binaries -only etcd,kube-apiserver -out $(OUT)/k8s/bin
	go run ./tools/cmd/kindnode binaries -only pilot-discovery -out $(OUT)/istiod
	go build -trimpath -o $(OUT)/conformance-istiod ./tools/cmd/conformance-istiod
	$(OUT)/conformance-istiod -ours $(BIN)/pilot-discovery -theirs $(OUT)/istiod/pilot-discovery -run '$(RUN)'

SEED ?= 1
COUNT ?= 60
.PHONY: conformance-random
conformance-random: envoy build ## Istio's control plane with a real Envoy, and our pilot with our engine, answer the same to COUNT random fixtures from SEED on
	go run ./tools/cmd/kindnode binaries -only etcd,kube-apiserver -out $(OUT)/k8s/bin
	go run ./tools/cmd/kindnode binaries -only pilot-discovery -out $(OUT)/istiod
	rm -rf $(OUT)/random
	go run ./tools/cmd/randomfixtures -seed $(SEED) -count $(COUNT) -dir $(OUT)/random
	go build -trimpath -o $(OUT)/conformance-envoy ./tools/cmd/conformance-envoy
	$(OUT)/conformance-envoy -envoy $(OUT)/envoy/envoy -bin $(BIN) -istiod $(OUT)/istiod/pilot-discovery -fixtures $(OUT)/random -settle 3s

.PHONY: h2spec
h2spec: deps build ## the HTTP/2 conformance tester finds nothing wrong with a waypoint and a gateway
	go build -trimpath -o $(OUT)/conformance-envoy ./tools/cmd/conformance-envoy
	cd tools/h2spec && GOWORK=off go build -o $(OUT)/h2spec github.com/summerwind/h2spec/cmd/h2spec
	$(OUT)/conformance-envoy -bin $(BIN) -engine isthmus -h2spec $(OUT)/h2spec

.PHONY: test
test: deps envoy build ## run all tests that need no cluster, with the race detector
	CGO_ENABLED=1 tools/test.sh $(MODULES)

.PHONY: upgrade-skew
upgrade-skew: deps ## node proxies of the commit UPGRADE_FROM hand over to this tree's, and take back
	tools/upgrade-skew.sh '$(UPGRADE_FROM)'

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (5s each)
	tools/fuzz.sh $(or $(FUZZTIME),5s) $(MODULES)

# The machines of people who type istioctl.
CLIENTS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64

.PHONY: istioctl-all
istioctl-all: ## istioctl for CLIENTS, in out/istioctl
	for p in $(CLIENTS); do GOOS=$${p%/*} GOARCH=$${p#*/} go build -trimpath -ldflags '$(LDFLAGS)' \
		-o $(OUT)/istioctl/istioctl-$${p%/*}-$${p#*/}$$([ $${p%/*} = windows ] && echo .exe) ./istioctl/cmd/istioctl; done

.PHONY: istioctl-check
istioctl-check: ## fail when istioctl does not compile for another system; the architecture matters to our code nowhere
	for os in darwin windows; do echo "compile istioctl for $$os"; GOOS=$$os GOARCH=arm64 go build ./istioctl/...; done

.PHONY: lint
lint: gen-check tidy-check istioctl-check ## check generated code, module files, vet and the linters
	@mkdir -p $(BIN)
	cd tools/lint && GOWORK=off go build -o $(BIN)/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	for m in $(MODULES); do echo "lint $$m"; (cd $$m && $(BIN)/golangci-lint run --config $(CURDIR)/.golangci.yml ./...); done

.PHONY: gen
gen: ## regenerate what is generated
	@mkdir -p $(BIN)
	go build -o $(BIN)/protogen ./tools/cmd/protogen
	$(BIN)/protogen $(PROTOS)
	go run ./tools/cmd/crdsync
	cd operator/charts && go generate .

.PHONY: gen-check
gen-check: gen ## fail when generated code differs from its source
	@git diff --exit-code -- '*.pb.go' operator || { echo "generated code is stale: run make gen and commit the result"; exit 1; }

.PHONY: tidy-check
tidy-check: ## fail when a module file is not tidy
	@for m in $(MODULES); do (cd $$m && GOWORK=off go mod tidy -diff) || { echo "$$m: run go mod tidy there"; exit 1; }; done

.PHONY: bench
bench: envoy ## measure, as ratios against a peer or a limit in the same run
	@short=0; for b in benchl4 benchcapture benchwds benchxds benchl7; do go run ./tools/cmd/$$b || short=1; done; exit $$short

.PHONY: soak
soak: deps build ## the mesh under load for SOAKTIME (1h each: l4, l7) while everything changes: what is lost, what grows; SOAK="-only l4" is one
	go build -trimpath -o $(OUT)/soak ./tools/cmd/soak
	$(OUT)/soak -bin $(BIN) -time $(or $(SOAKTIME),1h) $(SOAK)

.PHONY: bench-scale
bench-scale: ## measure the control plane and Istio's beside a real API server with 10 000 and 25 000 pods, and ours with 50 000; PEER=recorded does not build and run Istio's
	go run ./tools/cmd/kindnode binaries -only etcd,kube-apiserver -out $(OUT)/k8s/bin
	$(if $(filter recorded,$(PEER)),,go run ./tools/cmd/kindnode binaries -only pilot-discovery -out $(OUT)/istiod)
	go run ./tools/cmd/benchscale $(if $(filter recorded,$(PEER)),,-peer $(OUT)/istiod/pilot-discovery)

.PHONY: docker docker.all docker.save push docker.push
docker docker.all: ## container images for DOCKER_ARCHITECTURES as HUB/name:TAG, in out/images
	$(IMAGEBUILD)

docker.%: ## one image: make docker.ztunnel
	$(IMAGEBUILD) $*

docker.save: ## the images as compressed tarballs too
	$(IMAGEBUILD) -save

docker.push push: ## push the images to HUB as multi-architecture indexes
	$(IMAGEBUILD) -push

# A cluster here runs on this machine's architecture only.
e2e conformance: DOCKER_ARCHITECTURES = linux/$(shell go env GOARCH)

.PHONY: release
release: ## the archives that people download, in out/release
	go run ./tools/cmd/release -out $(OUT)/release -version '$(VERSION)' -revision $(REVISION) -hub '$(HUB)' -tag '$(TAG)' -epoch $(SOURCE_DATE_EPOCH)

.PHONY: qemu
qemu:
	command -v qemu-system-aarch64 >/dev/null && command -v qemu-aarch64-static >/dev/null || \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-system-arm qemu-user-static >/dev/null; }

.PHONY: test-arm64
test-arm64: qemu ## run the programs, and tests that need a kernel, on an emulated 64-bit ARM machine
	$(IMAGEBUILD) -arch arm64 pilot ztunnel proxyv2 install-cni istioctl app curl
	go run ./tools/cmd/arm64test -bin $(OUT)/images/bin/arm64 -out $(OUT)/arm64

KTLS_PACKAGES ?= pkg/tlsrec

.PHONY: test-ktls
test-ktls: qemu ## tests of records that the kernel seals, on an emulated machine whose kernel does; of pkg/tlsrec, or of KTLS_PACKAGES=pkg/tlsrec,pkg/hbone,ztunnel/internal/proxy
	go run ./tools/cmd/arm64test -bin '' -out $(OUT)/ktls -kernel-debian trixie-backports -tags ktls -peers -skip Envoy -packages $(KTLS_PACKAGES)

.PHONY: e2e
e2e: build docker ## the suites in a kind cluster made from Go modules and Debian; KIND_NODE_IMAGE=… uses that image, FAMILY=dual has both IP families, KEEP=1 keeps the cluster
	go run ./tools/cmd/kindnode e2e $(E2E_FLAGS) -helm -upgrade-from '$(UPGRADE_FROM)' -junit $(OUT)/e2e.xml -- $(E2E_ARGS)

.PHONY: conformance
conformance: build docker ## the Gateway API's own suite in a kind cluster; report in out/conformance.yaml
	go run ./tools/cmd/kindnode e2e $(E2E_FLAGS) -install '--set profile=ambient --set values.gatewayCredentials.allNamespaces=true' -tests $(CURDIR)/tests/e2e/conformance -packages . -- -run '^TestConformance$$' -args -report-output=$(OUT)/conformance.yaml $(E2E_ARGS)

.PHONY: cluster
cluster: ## a kind cluster without the mesh; `go run ./tools/cmd/kindnode down` deletes it
	go run ./tools/cmd/kindnode up $(if $(KIND_NODE_IMAGE),-image $(KIND_NODE_IMAGE))
	@go run ./tools/cmd/kindnode env

.PHONY: envtest
envtest: ## tests against a real API server, built here from its module
	go run ./tools/cmd/kindnode binaries -only etcd,kube-apiserver -out $(OUT)/k8s/bin
	CGO_ENABLED=1 tools/envtest.sh

.PHONY: clean
clean: ## remove what was built, clusters with it
	go run ./tools/cmd/kindnode down -all
	rm -rf $(BIN) $(OUT)
