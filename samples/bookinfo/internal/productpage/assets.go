package productpage

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
)

//go:embed static
var staticFiles embed.FS

// assets serves the files below /static/.
type assets struct {
	version string // changes with any file; pages ask for "file?v=version"
	files   http.Handler
}

func loadAssets() (*assets, error) {
	h := sha256.New()
	err := fs.WalkDir(staticFiles, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := staticFiles.ReadFile(path)
		h.Write(data)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read embedded assets: %w", err)
	}
	return &assets{
		version: hex.EncodeToString(h.Sum(nil))[:12],
		files:   http.FileServerFS(staticFiles),
	}, nil
}

// ServeHTTP lets browsers keep a file for good where the address names our
// version, and makes them ask again otherwise.
func (a *assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path[len(r.URL.Path)-1] == '/' { // no listing of folders
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", `"`+a.version+`"`)
	w.Header().Set("Cache-Control", "no-cache")
	if r.URL.Query().Get("v") == a.version {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	a.files.ServeHTTP(w, r)
}
