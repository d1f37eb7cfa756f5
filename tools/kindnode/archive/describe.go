package archive

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// Summary is what a docker archive says of one of its images.
type Summary struct {
	ID   string // sha256:… of the configuration
	Refs []string
}

// Describe reads the summaries of the images in an archive.
func Describe(name string) ([]Summary, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := tar.NewReader(f)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s is no docker archive: it has no manifest.json", name)
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		if path.Clean(h.Name) == "manifest.json" {
			return parseManifest(in)
		}
	}
}

func parseManifest(r io.Reader) ([]Summary, error) {
	var list []struct {
		Config   string
		RepoTags []string
	}
	if err := json.NewDecoder(r).Decode(&list); err != nil {
		return nil, fmt.Errorf("parse manifest.json: %w", err)
	}
	var out []Summary
	for _, m := range list {
		// "sha256:HEX", "HEX.json" or "blobs/sha256/HEX", depending on who wrote the archive.
		sum := strings.TrimSuffix(path.Base(strings.TrimPrefix(m.Config, "sha256:")), ".json")
		out = append(out, Summary{ID: "sha256:" + sum, Refs: m.RepoTags})
	}
	return out, nil
}
