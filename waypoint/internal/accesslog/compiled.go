package accesslog

import "github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"

// Format is a compiled format string, for others than logs. What is absent is left out.
type Format struct{ text *text }

// CompileFormat reads a format string.
func CompileFormat(format string) (*Format, error) {
	t, err := compileText(format, true)
	if err != nil {
		return nil, err
	}
	return &Format{t}, nil
}

// AppendTo appends the text of a record.
func (f *Format) AppendTo(dst []byte, r *proxy.Record) []byte { return f.text.appendTo(dst, r) }

// AppendQuoted appends a text as a JSON string.
func AppendQuoted(dst []byte, s string) []byte {
	mark := len(dst)
	return quoteFrom(append(dst, s...), mark)
}
