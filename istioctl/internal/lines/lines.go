// Package lines finds the line of a file on which a field of an object is written.
package lines

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	yaml "sigs.k8s.io/yaml/goyaml.v3"
)

// File is a file of YAML documents, or JSON. It is immutable.
type File struct {
	documents []document
}

// document is what begins on a line. root is nil for one that is not valid.
type document struct {
	line int
	root *yaml.Node
}

// Read reads a file. What is not valid is left out: whoever asks for a line in it gets the line of the document.
func Read(data []byte) *File {
	f := &File{}
	for _, d := range split(data) {
		decoder := yaml.NewDecoder(bytes.NewReader(d.data))
		for {
			var n yaml.Node
			err := decoder.Decode(&n)
			if err != nil {
				if !errors.Is(err, io.EOF) {
					f.documents = append(f.documents, document{line: d.line})
				}
				break
			}
			if n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
				shift(&n, d.line-1, map[*yaml.Node]bool{})
				f.documents = append(f.documents, document{line: n.Content[0].Line, root: n.Content[0]})
			}
		}
	}
	return f
}

// piece is the text of a document and the line of its first byte.
type piece struct {
	line int
	data []byte
}

// split cuts at document markers, so that one document that is not valid does not hide the others.
func split(data []byte) []piece {
	var out []piece
	current, line := piece{line: 1}, 0
	for text := range bytes.Lines(data) {
		line++
		bare := strings.TrimRight(string(text), "\r\n\t ")
		if bare == "---" || strings.HasPrefix(bare, "--- #") {
			out = append(out, current)
			current = piece{line: line + 1}
			continue
		}
		current.data = append(current.data, text...)
	}
	return append(out, current)
}

// shift moves the lines of a document to those of the file.
func shift(n *yaml.Node, by int, done map[*yaml.Node]bool) {
	if n == nil || done[n] {
		return
	}
	done[n] = true
	n.Line += by
	for _, c := range n.Content {
		shift(c, by, done)
	}
	shift(n.Alias, by, done)
}

// document finds the one that a line is in: the last that begins at or before it, or, for a line above its first content, the next.
func (f *File) document(line int) *document {
	at := -1
	for i := range f.documents {
		if f.documents[i].line <= line || at < 0 {
			at = i
		}
	}
	if at < 0 {
		return nil
	}
	return &f.documents[at]
}

// Line returns the line of a field, such as spec.rules[0].from[0].source or metadata.labels[istio.io/use-waypoint], of the object whose
// document begins on a line. For a field that is not written it is that of the nearest thing around it that is; for a document that is
// not there, 0. The field of an object in a List begins with items[1].
func (f *File) Line(documentLine int, field string) int {
	d := f.document(documentLine)
	switch {
	case d == nil:
		return 0
	case d.root == nil:
		return d.line
	}
	line, _, _ := follow(d.root, d.line, field)
	return line
}

// Value returns a scalar; ok is false when the field is not written, or is none.
func (f *File) Value(documentLine int, field string) (value string, ok bool) {
	d := f.document(documentLine)
	if d == nil || d.root == nil {
		return "", false
	}
	_, n, whole := follow(d.root, d.line, field)
	if !whole || n.Kind != yaml.ScalarNode {
		return "", false
	}
	return n.Value, true
}

// Item returns how the fields of an object in a List begin ("items[1]."), or "" for an object that is a document itself.
func (f *File) Item(documentLine int, kind, namespace, name string) string {
	d := f.document(documentLine)
	if d == nil || d.root == nil {
		return ""
	}
	_, items, ok := follow(d.root, d.line, "items")
	if !ok || items.Kind != yaml.SequenceNode {
		return ""
	}
	for i, item := range items.Content {
		text := func(field string) string {
			if _, n, ok := follow(item, 0, field); ok {
				return n.Value
			}
			return ""
		}
		listed := text("kind")
		own := text("metadata.namespace")
		if (listed == kind || listed == "") && text("metadata.name") == name && (own == namespace || own == "") {
			return "items[" + strconv.Itoa(i) + "]."
		}
	}
	return ""
}

// follow walks down a path; whole is whether all of it is there. line is that of the last key or item found.
func follow(n *yaml.Node, line int, path string) (at int, found *yaml.Node, whole bool) {
	for path != "" {
		for n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		if rest, ok := strings.CutPrefix(path, "."); ok {
			path = rest
			continue
		}
		next, key, rest := step(n, path)
		if next == nil {
			return line, n, false
		}
		line, n, path = key, next, rest
	}
	return line, n, true
}

// step goes to the child that the beginning of a path names: the longest key that it begins with, or the item of an index.
func step(n *yaml.Node, path string) (child *yaml.Node, line int, rest string) {
	inner, after, bracketed := "", "", false
	if path[0] == '[' {
		if end := strings.IndexByte(path, ']'); end > 0 {
			inner, after, bracketed = strings.Trim(path[1:end], `"'`), path[end+1:], true
		}
	}
	switch n.Kind {
	case yaml.SequenceNode:
		i, err := strconv.Atoi(inner)
		if !bracketed || err != nil || i < 0 || i >= len(n.Content) {
			return nil, 0, ""
		}
		return n.Content[i], n.Content[i].Line, after
	case yaml.MappingNode:
		best := -1
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i].Value
			switch {
			case bracketed && key == inner:
				return n.Content[i+1], n.Content[i].Line, after
			case !bracketed && begins(path, key) && (best < 0 || len(key) > len(n.Content[best].Value)):
				best = i
			}
		}
		if best >= 0 {
			return n.Content[best+1], n.Content[best].Line, path[len(n.Content[best].Value):]
		}
	case yaml.DocumentNode, yaml.ScalarNode, yaml.AliasNode:
	}
	return nil, 0, ""
}

// begins is whether a key is the first part of a path.
func begins(path, key string) bool {
	rest, ok := strings.CutPrefix(path, key)
	return ok && key != "" && (rest == "" || slices.Contains([]byte(".["), rest[0]))
}
