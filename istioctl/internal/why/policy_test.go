package why

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	securityapi "istio.io/api/security/v1beta1"
)

// TestRuleTextSaysEveryField: whatever a rule asks for is told, also what the API will have one day.
func TestRuleTextSaysEveryField(t *testing.T) {
	t.Parallel()
	type messageRule struct {
		of   proto.Message
		rule func(proto.Message) *securityapi.Rule
	}
	for _, c := range []messageRule{
		{&securityapi.Source{}, func(m proto.Message) *securityapi.Rule {
			return &securityapi.Rule{From: []*securityapi.Rule_From{{Source: m.(*securityapi.Source)}}}
		}},
		{&securityapi.Operation{}, func(m proto.Message) *securityapi.Rule {
			return &securityapi.Rule{To: []*securityapi.Rule_To{{Operation: m.(*securityapi.Operation)}}}
		}},
		{&securityapi.Condition{}, func(m proto.Message) *securityapi.Rule {
			return &securityapi.Rule{When: []*securityapi.Condition{m.(*securityapi.Condition)}}
		}},
	} {
		fields := c.of.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			field := fields.Get(i)
			if !field.IsList() {
				continue // a condition's key says nothing without values
			}
			m := c.of.ProtoReflect().New()
			if condition, ok := m.Interface().(*securityapi.Condition); ok {
				condition.Key = "the.key"
			}
			list := m.Mutable(field).List()
			list.Append(protoreflect.ValueOfString("one"))
			list.Append(protoreflect.ValueOfString("two"))
			text := ruleText(c.rule(m.Interface()))
			name := field.JSONName()
			not := strings.HasPrefix(name, "not")
			if name = strings.TrimPrefix(name, "not"); c.of.ProtoReflect().Descriptor().Name() == "Condition" {
				name = "the.key"
			}
			if !strings.Contains(strings.ToLower(text), strings.ToLower(name)+" one,two") || strings.Contains(text, "not ") != not {
				t.Errorf("%s: the text is %q", field.FullName(), text)
			}
		}
	}
}

func TestRuleText(t *testing.T) {
	t.Parallel()
	source := func(s *securityapi.Source) *securityapi.Rule_From { return &securityapi.Rule_From{Source: s} }
	for want, rule := range map[string]*securityapi.Rule{
		"anything": {},
		"principals a,b not namespaces n methods GET when not request.headers[x] y": {
			From: []*securityapi.Rule_From{source(&securityapi.Source{Principals: []string{"a", "b"}, NotNamespaces: []string{"n"}})},
			To:   []*securityapi.Rule_To{{Operation: &securityapi.Operation{Methods: []string{"GET"}}}},
			When: []*securityapi.Condition{{Key: "request.headers[x]", NotValues: []string{"y"}}},
		},
		"(principals a or namespaces n)": {
			From: []*securityapi.Rule_From{source(&securityapi.Source{Principals: []string{"a"}}), source(&securityapi.Source{Namespaces: []string{"n"}})},
		},
	} {
		if have := ruleText(rule); have != want {
			t.Errorf("%q, want %q", have, want)
		}
	}
}
