package h1

import (
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

func TestFieldsAreUnfoldedWhereThatIsAskedFor(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"host: x\r\nfoo: a\r\n b\r\n\t c\r\nbar: d\r\n\r\n", "a b\t c"},
		{"host: x\r\nfoo:\r\n a\r\nbar: d\r\n\r\n", "a"},
		{"foo: a\r\nbar: d\r\nhost:\r\n\tx\r\n\r\n", "a"},
	} {
		p := parser{maxFields: 100, unfold: true}
		p.reset()
		var h httpmsg.Header
		if err := p.fields([]byte(strings.Clone(test.in)), &h); err != nil {
			t.Errorf("%q: %v", test.in, err)
		}
		if h.Value("foo") != test.want || h.Value("bar") != "d" || p.host != "x" {
			t.Errorf("%q: %q %q %q", test.in, h.Value("foo"), h.Value("bar"), p.host)
		}
	}
	for _, in := range []string{" host: x\r\n\r\n", "foo: a\r\n b\x00\r\n\r\n", "fo\r\n o: a\r\n\r\n", "transfer-encoding: chunked\r\n , gzip\r\n\r\n"} {
		p := parser{maxFields: 100, unfold: true}
		p.reset()
		if err := p.fields([]byte(in), &httpmsg.Header{}); err == nil {
			t.Errorf("%q is taken", in)
		}
	}
}
