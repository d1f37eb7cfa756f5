// Package sbom writes what an image consists of as SPDX 2.3.
package sbom

import (
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/tools/internal/debian"
)

// Document says what it is about.
type Document struct {
	// Image is its name, Version its tag.
	Image, Version, Arch string
	Created              time.Time
	// Binaries by path in the image.
	Binaries map[string]*buildinfo.BuildInfo
	Packages []debian.Package
}

type spdx struct {
	Version       string         `json:"spdxVersion"`
	License       string         `json:"dataLicense"`
	ID            string         `json:"SPDXID"`
	Name          string         `json:"name"`
	Namespace     string         `json:"documentNamespace"`
	Creation      creation       `json:"creationInfo"`
	Packages      []element      `json:"packages"`
	Relationships []relationship `json:"relationships"`
}

type creation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type element struct {
	ID         string      `json:"SPDXID"`
	Name       string      `json:"name"`
	Version    string      `json:"versionInfo,omitempty"`
	File       string      `json:"packageFileName,omitempty"`
	Purpose    string      `json:"primaryPackagePurpose,omitempty"`
	Download   string      `json:"downloadLocation"`
	Analyzed   bool        `json:"filesAnalyzed"`
	References []reference `json:"externalRefs,omitempty"`
}

type reference struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

// writer collects elements, each once.
type writer struct {
	doc  spdx
	seen map[string]bool
}

// JSON is the document.
func (d Document) JSON() ([]byte, error) {
	image := identifier("Image", d.Image, d.Arch)
	w := writer{seen: map[string]bool{}, doc: spdx{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: d.Image + "-" + d.Arch,
		// Of this image, tag, architecture and time: a document's name must not be used for another.
		Namespace: fmt.Sprintf("https://github.com/isthmus-mesh/isthmus/spdx/%s/%s/%s/%d",
			url.PathEscape(d.Image), url.PathEscape(d.Version), d.Arch, d.Created.Unix()),
		Creation: creation{Created: d.Created.UTC().Format(time.RFC3339), Creators: []string{"Tool: isthmus-imagebuild"}},
	}}
	w.add("SPDXRef-DOCUMENT", "DESCRIBES", element{ID: image, Name: d.Image, Version: d.Version, Purpose: "CONTAINER"})
	paths := make([]string, 0, len(d.Binaries))
	for name := range d.Binaries {
		paths = append(paths, name)
	}
	slices.Sort(paths)
	for _, name := range paths {
		info := d.Binaries[name]
		program := identifier("Binary", name)
		w.add(image, "CONTAINS", element{ID: program, Name: path.Base(name), Version: d.Version, File: name, Purpose: "APPLICATION"})
		w.add(program, "DEPENDS_ON", goModule("stdlib", strings.TrimPrefix(info.GoVersion, "go")))
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			if strings.HasPrefix(m.Path, ".") || m.Version == "" || m.Version == "(devel)" {
				continue // a module of this repository
			}
			w.add(program, "DEPENDS_ON", goModule(m.Path, m.Version))
		}
	}
	for _, p := range d.Packages {
		w.add(image, "CONTAINS", element{
			ID: identifier("Deb", p.Name, p.Version), Name: p.Name, Version: p.Version,
			References: purl(fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s", p.Name, url.QueryEscape(p.Version), p.Architecture)),
		})
	}
	out, err := json.MarshalIndent(w.doc, "", "  ")
	return append(out, '\n'), err
}

func (w *writer) add(from, how string, e element) {
	if !w.seen[e.ID] {
		w.seen[e.ID] = true
		e.Download = "NOASSERTION"
		w.doc.Packages = append(w.doc.Packages, e)
	}
	w.doc.Relationships = append(w.doc.Relationships, relationship{from, how, e.ID})
}

func goModule(name, version string) element {
	return element{ID: identifier("Go", name, version), Name: name, Version: version, References: purl("pkg:golang/" + name + "@" + url.QueryEscape(version))}
}

func purl(locator string) []reference {
	return []reference{{Category: "PACKAGE-MANAGER", Type: "purl", Locator: locator}}
}

// identifier keeps to the letters that SPDX allows.
func identifier(parts ...string) string {
	return "SPDXRef-" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-':
			return r
		}
		return '-'
	}, strings.Join(parts, "-"))
}
