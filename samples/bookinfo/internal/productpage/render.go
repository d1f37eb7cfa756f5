package productpage

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
)

//go:embed templates
var templateFiles embed.FS

// pages renders the two HTML pages.
type pages struct {
	index, product *template.Template
	assetVersion   string
}

func loadPages(assetVersion string) (*pages, error) {
	parse := func(name string) (*template.Template, error) {
		t, err := template.New(name).Funcs(template.FuncMap{"initial": initial}).
			ParseFS(templateFiles, "templates/layout.html", "templates/"+name)
		if err != nil {
			return nil, fmt.Errorf("parse page %s: %w", name, err)
		}
		return t, nil
	}
	index, err := parse("index.html")
	if err != nil {
		return nil, err
	}
	product, err := parse("productpage.html")
	if err != nil {
		return nil, err
	}
	return &pages{index: index, product: product, assetVersion: assetVersion}, nil
}

// initial is a name's first letter.
func initial(name string) string {
	for _, r := range name {
		return string(r)
	}
	return ""
}

// render sends a page only once it is complete, so that a failure is a clean 500.
func (s *service) render(w http.ResponseWriter, t *template.Template, v view) {
	v.AssetVersion = s.pages.assetVersion
	var buf bytes.Buffer
	if err := t.ExecuteTemplate(&buf, "layout.html", v); err != nil {
		s.log.Error("render page", "page", t.Name(), "error", err)
		http.Error(w, "the page could not be rendered", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = buf.WriteTo(w)
}
