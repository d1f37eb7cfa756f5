package image

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/isthmus-mesh/isthmus/tools/cmd/imagebuild/internal/spec"
)

// compile builds one program for linux on arch and returns where it is: where the Dockerfiles take it from too.
func (b *Builder) compile(ctx context.Context, binary spec.Binary, arch string) (string, *buildinfo.BuildInfo, error) {
	dir := b.cfg.Root
	if binary.Module != "" {
		dir = filepath.Join(dir, binary.Module)
	}
	out := filepath.Join(b.cfg.Out, "bin", arch, filepath.Base(binary.To))
	if info, done := b.compiled[out]; done {
		return out, info, nil
	}
	// Another build may be reading the last one.
	fresh := fmt.Sprintf("%s.new-%d", out, os.Getpid())
	defer os.Remove(fresh) // gone already when all went well
	flags := fmt.Sprintf("-s -w -buildid= -X main.version=%s -X main.revision=%s", b.cfg.Version, b.cfg.Revision)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", fresh, binary.Package)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0", "GOAMD64=v1", "GOARM64=v8.0")
	if binary.Module != "" {
		cmd.Env = append(cmd.Env, "GOWORK=off")
	}
	if problem, err := cmd.CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("go build %s for %s: %w\n%s", binary.Package, arch, err, strings.TrimSpace(string(problem)))
	}
	if err := os.Rename(fresh, out); err != nil {
		return "", nil, err
	}
	info, err := buildinfo.ReadFile(out)
	if err != nil {
		return "", nil, err
	}
	b.compiled[out] = info
	return out, info, nil
}
