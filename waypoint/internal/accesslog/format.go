package accesslog

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
)

// absent is what a text shows for a value that there is not.
const absent = "-"

// operator appends one value of a record. It returns false, and dst as it was, when there is none.
type operator struct {
	append func(dst []byte, r *proxy.Record) ([]byte, bool)
	// number is whether the value is one in JSON.
	number bool
	// limit is how many bytes of the value are shown; 0 is all.
	limit int
}

func (o *operator) appendTo(dst []byte, r *proxy.Record) ([]byte, bool) {
	start := len(dst)
	dst, ok := o.append(dst, r)
	if ok && o.limit > 0 && len(dst)-start > o.limit {
		dst = dst[:start+o.limit]
	}
	return dst, ok
}

// part is a literal, or an operator when that is set.
type part struct {
	literal  string
	operator *operator
}

// text is a compiled format string.
type text struct {
	parts     []part
	omitEmpty bool
}

// compileText reads "literal %OPERATOR(PARAMETERS):LIMIT% literal"; %% is a percent sign.
func compileText(format string, omitEmpty bool) (*text, error) {
	t := &text{omitEmpty: omitEmpty}
	literal := func(s string) {
		if n := len(t.parts); n > 0 && t.parts[n-1].operator == nil {
			t.parts[n-1].literal += s
		} else if s != "" {
			t.parts = append(t.parts, part{literal: s})
		}
	}
	for rest := format; rest != ""; {
		before, after, found := strings.Cut(rest, "%")
		literal(before)
		if !found {
			break
		}
		if escaped, ok := strings.CutPrefix(after, "%"); ok {
			literal("%")
			rest = escaped
			continue
		}
		command, remaining, err := cutCommand(after)
		if err != nil {
			return nil, fmt.Errorf("format at offset %d: %w", len(format)-len(after)-1, err)
		}
		o, err := command.compile()
		if err != nil {
			return nil, fmt.Errorf("format: %%%s%%: %w", after[:len(after)-len(remaining)-1], err)
		}
		t.parts = append(t.parts, part{operator: o})
		rest = remaining
	}
	return t, nil
}

// command is what is between two percent signs.
type command struct {
	name, params string
	hasParams    bool
	limit        int
}

// cutCommand reads a command and the percent sign that ends it. Parameters end at the first parenthesis that the end of the
// command follows.
func cutCommand(s string) (c command, rest string, err error) {
	end := strings.IndexFunc(s, func(r rune) bool { return !(r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_') })
	if end < 0 {
		end = len(s)
	}
	if end == 0 {
		return c, "", fmt.Errorf("no operator after %%: write %%%% for a percent sign")
	}
	c.name, s = s[:end], s[end:]
	if !strings.HasPrefix(s, "(") {
		rest, ok := c.cutEnd(s)
		if !ok {
			return c, "", fmt.Errorf("the operator %s does not end in %%", c.name)
		}
		return c, rest, nil
	}
	c.hasParams = true
	for at := 1; ; at++ {
		next := strings.IndexByte(s[at:], ')')
		if next < 0 {
			return c, "", fmt.Errorf("the parameters of %s do not end in )%%", c.name)
		}
		at += next
		if rest, ok := c.cutEnd(s[at+1:]); ok {
			c.params = s[1:at]
			return c, rest, nil
		}
	}
}

// cutEnd reads ":LIMIT%" or "%".
func (c *command) cutEnd(s string) (rest string, ok bool) {
	if rest, ok = strings.CutPrefix(s, "%"); ok {
		return rest, true
	}
	digits, rest, ok := strings.Cut(s, "%")
	if !ok || !strings.HasPrefix(digits, ":") {
		return "", false
	}
	limit, err := strconv.ParseUint(digits[1:], 10, 31)
	if err != nil {
		return "", false
	}
	c.limit = int(limit)
	return rest, true
}

func (t *text) appendTo(dst []byte, r *proxy.Record) []byte {
	for i := range t.parts {
		p := &t.parts[i]
		if p.operator == nil {
			dst = append(dst, p.literal...)
			continue
		}
		var ok bool
		if dst, ok = p.operator.appendTo(dst, r); !ok && !t.omitEmpty {
			dst = append(dst, absent...)
		}
	}
	return dst
}
