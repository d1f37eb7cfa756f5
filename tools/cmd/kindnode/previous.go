package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/tools/kindnode/cache"
	"github.com/isthmus-mesh/isthmus/tools/kindnode/gobin"
)

// previousTag is that of the images of the version that is upgraded.
const previousTag = "previous"

// makePrograms builds what the tests use besides istioctl, and tells them by their environment.
func (s *suite) makePrograms(ctx context.Context) error {
	if s.helm {
		built, err := s.builder().Build(ctx, gobin.Helm(), nil)
		if err != nil {
			return err
		}
		tools, err := s.builder().Build(ctx, gobin.Kubernetes(), []string{"kubectl"})
		if err != nil {
			return err
		}
		s.programs = append(s.programs, "HELM="+built["helm"], "KUBECTL="+tools["kubectl"])
	}
	dir, err := s.makePrevious(ctx)
	if err == nil && dir != "" {
		s.programs = append(s.programs, "PREVIOUS_ISTIOCTL="+filepath.Join(dir, "istioctl"), "PREVIOUS_TAG="+previousTag)
	}
	return err
}

// makePrevious builds istioctl and the images of the mesh from the commit that is upgraded, with that commit's own tools. The result is
// kept under its hash.
func (s *suite) makePrevious(ctx context.Context) (string, error) {
	if s.upgradeFrom == "" || s.upgradeFrom == "-" {
		return "", nil
	}
	commit, err := s.git(ctx, "rev-parse", "--verify", s.upgradeFrom+"^{commit}")
	if err != nil {
		return "", fmt.Errorf("-upgrade-from: %w (a clone without history has none before: use -upgrade-from -)", err)
	}
	key, err := cache.NewKey(commit, s.hub, runtime.GOARCH).Sum()
	if err != nil {
		return "", err
	}
	cached, err := s.cache().Make("previous", key, func(dir string) error {
		start := time.Now()
		s.log.Info("building the version before", "commit", commit)
		if err := s.buildCommit(ctx, commit, dir); err != nil {
			return fmt.Errorf("build %s: %w", commit, err)
		}
		s.log.Info("built the version before", "took", time.Since(start).Round(time.Second/10))
		return nil
	})
	s.previous = cached
	return cached, err
}

func (s *suite) previousImages() []string {
	if s.previous == "" {
		return nil
	}
	return []string{filepath.Join(s.previous, "images")}
}

func (s *suite) buildCommit(ctx context.Context, commit, out string) error {
	sources, err := os.MkdirTemp(s.dir, "previous-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(sources)
	if err := s.export(ctx, commit, sources); err != nil {
		return err
	}
	epoch, err := s.git(ctx, "log", "-1", "--format=%ct", commit)
	if err != nil {
		return err
	}
	short := commit[:12]
	ldflags := "-s -w -X main.version=" + previousTag + " -X main.revision=" + short
	for _, args := range [][]string{
		{"build", "-trimpath", "-ldflags", ldflags, "-o", filepath.Join(out, "istioctl"), "./istioctl/cmd/istioctl"},
		{
			"run", "./tools/cmd/imagebuild", "-hub", s.hub, "-tag", previousTag, "-version", previousTag, "-revision", short, "-epoch", epoch,
			"-arch", runtime.GOARCH, "-out", filepath.Join(out, "images"), "pilot", "ztunnel", "proxyv2", "install-cni",
		},
	} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = sources
		cmd.Env = append(cmd.Environ(), "GOFLAGS=-buildvcs=false", "CGO_ENABLED=0")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("go %s: %w", args[0], err)
		}
	}
	return pruneImages(filepath.Join(out, "images"))
}

// pruneImages leaves the archives, which are what is loaded.
func pruneImages(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".tar") {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// export writes the files of a commit into a folder.
func (s *suite) export(ctx context.Context, commit, dir string) error {
	pack := exec.CommandContext(ctx, "git", "archive", commit)
	pack.Dir = s.repo
	pack.Stderr = os.Stderr
	pipe, err := pack.StdoutPipe()
	if err != nil {
		return err
	}
	if err := pack.Start(); err != nil {
		return err
	}
	unpack := exec.CommandContext(ctx, "tar", "-x", "-C", dir)
	unpack.Stdin, unpack.Stderr = pipe, os.Stderr
	err = unpack.Run()
	pipe.Close() // else git waits for ever for a reader, if tar has given up
	return errors.Join(err, pack.Wait())
}

func (s *suite) git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = s.repo
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return "", fmt.Errorf("git %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
