package mutate

import (
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// command appends the value of a %COMMAND%; nothing when there is none.
type command func(b []byte, i *exchange.Info) []byte

// Format is a compiled format string.
type Format struct {
	literal string // when there is no command
	parts   []part
	source  string
}

type part struct {
	text string
	cmd  command
	max  int // of the value; 0 is any
}

// CompileFormat compiles a format string. A command that is not supported is an error.
func CompileFormat(s string) (Format, error) {
	f := Format{source: s}
	var text strings.Builder
	for rest := s; rest != ""; {
		i := strings.IndexByte(rest, '%')
		if i < 0 {
			text.WriteString(rest)
			break
		}
		text.WriteString(rest[:i])
		rest = rest[i+1:]
		if strings.HasPrefix(rest, "%") {
			text.WriteByte('%')
			rest = rest[1:]
			continue
		}
		end := commandEnd(rest)
		if end < 0 {
			return f, strict.Errorf("", "format %q: a %% is not closed", s)
		}
		cmd, limit, err := compileCommand(rest[:end])
		if err != nil {
			return f, err
		}
		if text.Len() > 0 {
			f.parts = append(f.parts, part{text: text.String()})
			text.Reset()
		}
		f.parts = append(f.parts, part{cmd: cmd, max: limit})
		rest = rest[end+1:]
	}
	if len(f.parts) == 0 {
		f.literal = text.String()
		return f, nil
	}
	if text.Len() > 0 {
		f.parts = append(f.parts, part{text: text.String()})
	}
	return f, nil
}

// commandEnd finds the % that closes a command: one inside its parentheses does not.
func commandEnd(s string) int {
	depth := 0
	for i := range len(s) {
		switch s[i] {
		case '(':
			depth++
		case ')':
			depth--
		case '%':
			if depth <= 0 {
				return i
			}
		}
	}
	return -1
}

// String is the source.
func (f *Format) String() string { return f.source }

// Literal is the text when the format has no command.
func (f *Format) Literal() (string, bool) { return f.literal, len(f.parts) == 0 }

// Value formats. The string lives as long as the request.
func (f *Format) Value(i *exchange.Info) string {
	if len(f.parts) == 0 {
		return f.literal
	}
	b := i.Scratch.Bytes()
	for n := range f.parts {
		p := &f.parts[n]
		if p.cmd == nil {
			b = append(b, p.text...)
			continue
		}
		from := len(b)
		b = p.cmd(b, i)
		if p.max > 0 && len(b)-from > p.max {
			b = b[:from+p.max]
		}
	}
	return i.Scratch.Keep(b)
}

// compileCommand parses NAME, NAME(argument) and NAME(argument):length.
func compileCommand(s string) (command, int, error) {
	name, arg, limit := s, "", 0
	if open := strings.IndexByte(s, '('); open >= 0 {
		closed := strings.LastIndexByte(s, ')')
		if closed < open {
			return nil, 0, strict.Errorf("", "format command %q is malformed", s)
		}
		name, arg = s[:open], s[open+1:closed]
		if rest := s[closed+1:]; rest != "" {
			n, err := strconv.Atoi(strings.TrimPrefix(rest, ":"))
			if err != nil || rest[0] != ':' {
				return nil, 0, strict.Errorf("", "format command %q is malformed", s)
			}
			limit = n
		}
	}
	if cmd := headerCommand(name, arg); cmd != nil {
		return cmd, limit, nil
	}
	if cmd := connectionCommand(name); cmd != nil {
		return cmd, limit, nil
	}
	if cmd := streamCommand(name, arg); cmd != nil {
		return cmd, limit, nil
	}
	return nil, 0, strict.Errorf("", "format command %q is not supported", s)
}
