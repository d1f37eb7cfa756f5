package telemetry

import (
	"fmt"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
)

// Build says what a binary was made from. The fields are set by the linker through each main package's variables.
type Build struct {
	// Version is the release, such as "1.0.0"; "dev" when built from a checkout.
	Version string `json:"version"`
	// Revision is the source revision.
	Revision string `json:"revision"`
	// Go is the toolchain's version.
	Go string `json:"golang_version"`
	// Status is "Clean", or "Modified" when the source had uncommitted changes.
	Status string `json:"status"`
	// Tag is the image tag.
	Tag string `json:"tag"`
}

// NewBuild fills in what is not known.
func NewBuild(version, revision string) Build {
	if version == "" {
		version = "dev"
	}
	if revision == "" {
		revision = "unknown"
	}
	return Build{Version: version, Revision: revision, Go: runtime.Version(), Status: "Clean", Tag: version}
}

// String is the line that `version` prints.
func (b Build) String() string {
	return fmt.Sprintf("version.BuildInfo{Version:%q, GitRevision:%q, GolangVersion:%q, BuildStatus:%q, GitTag:%q}",
		b.Version, b.Revision, b.Go, b.Status, b.Tag)
}

// RegisterBuild exports the gauge istio_build{component,tag} with the value 1.
func RegisterBuild(registerer prometheus.Registerer, component string, b Build) error {
	gauge := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "istio_build",
		Help: "The version of the component, in its labels.",
	}, []string{"component", "tag"})
	if err := registerer.Register(gauge); err != nil {
		return fmt.Errorf("register istio_build: %w", err)
	}
	gauge.WithLabelValues(component, b.Tag).Set(1)
	return nil
}
