package dump

import (
	"fmt"
	"strings"
	"testing"
)

// TestAuthorizationKinds: dry runs, policies that ask somebody, and those that would ask and cannot, are told apart.
func TestAuthorizationKinds(t *testing.T) {
	t.Parallel()
	rbac := func(body string) string {
		return `{"name": "envoy.filters.http.rbac", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", ` + body + `}}`
	}
	filters := strings.Join([]string{
		rbac(`"shadowRules": {"action": "DENY", "policies": {"istio-ext-authz-opa-ns[shop]-policy[ask]-rule[0]": {}}}`),
		rbac(`"rules": {"action": "DENY", "policies": {"ns[shop]-policy[lost]-rule[0]-deny-due-to-bad-CUSTOM-action": {}}}`),
		rbac(`"rules": {"action": "DENY", "policies": {"ns[shop]-policy[no]-rule[0]": {}, "ns[shop]-policy[no]-rule[1]": {}}}, "shadowRules": {"action": "DENY", "policies": {"ns[shop]-policy[try]-rule[0]": {}}}`),
		rbac(`"rules": {"policies": {"ns[shop]-policy[yes]-rule[0]": {}}}`),
	}, ", ")
	e, err := ReadEnvoy(fmt.Appendf(nil, `{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "dynamicListeners": [{"name": "l", "activeState": {"listener":
		{"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "l", "filterChains": [{"filters": [{"name": "hcm", "typedConfig": {"httpFilters": [%s]}}]}]}}}]}]}`, filters))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range e.Authorization() {
		got = append(got, fmt.Sprintf("%s: %s.%s %d", r.Action, r.Policy, r.Namespace, r.Rules))
	}
	want := []string{
		"CUSTOM: ask.shop 1", "CUSTOM (denies: its provider cannot be asked): lost.shop 1", "DENY: no.shop 2", "DENY (dry run): try.shop 1", "ALLOW: yes.shop 1",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
