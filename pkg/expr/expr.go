// Package expr compiles and evaluates expressions in CEL over the attributes that Envoy gives of requests and connections: filters of
// access logs, and values of metrics' labels. Whoever admits an expression and whoever evaluates it call the same code.
package expr

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
)

// maxLength bounds an expression, maxCost what evaluating one may cost.
const (
	maxLength = 16 << 10
	maxCost   = 1_000_000
)

// roots are the attributes that expressions may name.
func roots() []string {
	return []string{
		"connection", "destination", "downstream_peer", "filter_state", "metadata", "node", "request", "response", "source", "upstream",
		"upstream_filter_state", "upstream_peer", "xds",
	}
}

// Program is a compiled expression. It is immutable and safe for concurrent use.
type Program struct{ program cel.Program }

// Attributes finds values by the first part of their names, such as "request": maps with text keys. What is not there makes an
// expression that needs it false, or without a value.
type Attributes interface {
	Attribute(root string) (value any, ok bool)
}

// Compile reads an expression. The error says where and why it cannot be understood.
func Compile(expression string) (*Program, error) {
	if len(expression) > maxLength {
		return nil, fmt.Errorf("an expression of %d bytes is too long: use at most %d", len(expression), maxLength)
	}
	var options []cel.EnvOption
	for _, root := range roots() {
		options = append(options, cel.Variable(root, cel.DynType))
	}
	env, err := cel.NewEnv(options...)
	if err != nil {
		return nil, fmt.Errorf("environment of expressions: %w", err)
	}
	ast, issues := env.Compile(expression)
	if issues != nil && issues.Err() != nil {
		return nil, errors.New(oneLine(issues))
	}
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	if err != nil {
		return nil, fmt.Errorf("the expression cannot be evaluated: %w", err)
	}
	return &Program{program}, nil
}

// oneLine says the first problem and where it is.
func oneLine(issues *cel.Issues) string {
	first := issues.Errors()[0]
	text := first.Message
	if strings.HasPrefix(text, "undeclared reference to ") {
		text += "; attributes are " + strings.Join(roots(), ", ")
	}
	return fmt.Sprintf("line %d, column %d: %s", first.Location.Line(), first.Location.Column()+1, text)
}

// Eval returns the value; false when there is none.
func (p *Program) Eval(a Attributes) (any, bool) {
	v := p.eval(a)
	if v == nil {
		return nil, false
	}
	return v.Value(), true
}

// True is whether the value is true: what has no value is not.
func (p *Program) True(a Attributes) bool { return p.eval(a) == types.True }

// Text is the value as text; false when there is none.
func (p *Program) Text(a Attributes) (string, bool) {
	v := p.eval(a)
	if v == nil {
		return "", false
	}
	switch v := v.Value().(type) {
	case string:
		return v, true
	case []byte:
		return string(v), true
	case bool:
		return strconv.FormatBool(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case uint64:
		return strconv.FormatUint(v, 10), true
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), true
	case time.Duration:
		return v.String(), true
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano), true
	}
	return "", false
}

// eval is nil for what has no value.
func (p *Program) eval(a Attributes) ref.Val {
	v, _, err := p.program.Eval(activation{a})
	if err != nil || v == nil || types.IsUnknownOrError(v) || v == types.NullValue {
		return nil
	}
	return v
}

// activation implements interpreter.Activation.
type activation struct{ attributes Attributes }

// ResolveName implements interpreter.Activation.
func (a activation) ResolveName(name string) (any, bool) { return a.attributes.Attribute(name) }

// Parent implements interpreter.Activation.
func (activation) Parent() interpreter.Activation { return nil }
