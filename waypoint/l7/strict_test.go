package l7

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Every message and field in the tables of package strict exists: a misspelt one would refuse what is meant to be supported.
func TestStrictTablesNameRealFields(t *testing.T) {
	files, err := filepath.Glob("strict/*.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			c, ok := n.(*ast.CaseClause)
			if !ok || len(c.Body) != 1 {
				return true
			}
			ret, ok := c.Body[0].(*ast.ReturnStmt)
			if !ok {
				return true
			}
			fields := literal(ret.Results[0])
			for _, e := range c.List {
				name := literal(e)
				if !strings.Contains(name, ".") {
					continue
				}
				d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
				if err != nil {
					t.Errorf("%s: %s: %v", file, name, err)
					continue
				}
				md, ok := d.(protoreflect.MessageDescriptor)
				if !ok {
					t.Errorf("%s is no message", name)
					continue
				}
				seen++
				// A case may stand for two messages: each field is of one of them at least.
				for _, field := range strings.Fields(fields) {
					field = strings.TrimSuffix(field, "!")
					if md.Fields().ByName(protoreflect.Name(field)) == nil && len(c.List) == 1 {
						t.Errorf("%s has no field %s", name, field)
					}
				}
			}
			return true
		})
	}
	if seen < 100 {
		t.Errorf("only %d messages found", seen)
	}
}

func literal(e ast.Expr) string {
	b, ok := e.(*ast.BasicLit)
	if !ok {
		return ""
	}
	s, err := strconv.Unquote(b.Value)
	if err != nil {
		return ""
	}
	return s
}
