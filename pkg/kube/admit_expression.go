package kube

import "github.com/isthmus-mesh/isthmus/pkg/expr"

// expression is one in CEL over the attributes of requests and connections.
func (c *checker) expression(field, text string) {
	if _, err := expr.Compile(text); err != nil {
		c.bad(field, "%q is not an expression in CEL: %v", text, err)
	}
}
