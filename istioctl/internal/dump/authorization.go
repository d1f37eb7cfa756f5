package dump

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Rules says that a proxy enforces a policy by a number of its rules.
type Rules struct {
	Action    string `json:"action"`
	Policy    string `json:"policy"`
	Namespace string `json:"namespace,omitempty"`
	Rules     int    `json:"rules"`
}

// AuthorizationTable shows what is enforced: what is denied first.
func AuthorizationTable(all []Rules) *Table {
	t := &Table{Columns: []string{"ACTION", "AuthorizationPolicy", "RULES"}, Gap: 3}
	for _, r := range all {
		name := r.Policy
		if r.Namespace != "" {
			name += "." + r.Namespace
		}
		t.Rows = append(t.Rows, []string{r.Action, name, strconv.Itoa(r.Rules)})
	}
	return t
}

func sortRules(all []Rules) {
	rank := func(action string) int {
		action, _, _ = strings.Cut(action, " ")
		return slices.Index([]string{"CUSTOM", "DENY", "ALLOW", "AUDIT", "LOG"}, action)
	}
	slices.SortFunc(all, func(a, b Rules) int {
		return cmp.Or(cmp.Compare(rank(a.Action), rank(b.Action)), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Policy, b.Policy))
	})
}

// nothing is what stands for a policy without rules: as ALLOW, it lets nobody in.
const nothing = "_anonymous_match_nothing_"

// ruleName is how the control plane names the rules of a policy in a proxy's configuration.
var ruleName = regexp.MustCompile(`^(?:istio-ext-authz-.*-)?ns\[(.*)\]-policy\[(.*)\]-rule\[(.*)\](?:-deny-due-to-bad-CUSTOM-action)?$`)

// Authorization returns what an Envoy or waypoint enforces, in all its listeners.
func (e *Envoy) Authorization() []Rules {
	found := map[string]map[string]bool{} // rules by action and policy
	for _, r := range e.listeners {
		walkRBAC(r.body, func(rbac tree, shadow bool) {
			for name := range object(rbac, "policies") {
				action := cmp.Or(text(rbac, "action"), "ALLOW")
				policy := nothing
				if m := ruleName.FindStringSubmatch(name); m != nil {
					policy = m[2] + "." + m[1]
					switch {
					case strings.HasPrefix(name, "istio-ext-authz-"):
						action = "CUSTOM"
					case strings.HasSuffix(name, "-deny-due-to-bad-CUSTOM-action"):
						action = "CUSTOM (denies: its provider cannot be asked)"
					case shadow:
						action += dryRun
					}
				}
				key := action + "\n" + policy
				if found[key] == nil {
					found[key] = map[string]bool{}
				}
				found[key][name] = true
			}
		})
	}
	var out []Rules
	for key, names := range found {
		action, policy, _ := strings.Cut(key, "\n")
		one := Rules{Action: action, Policy: policy, Rules: len(names)}
		if i := strings.LastIndex(policy, "."); i > 0 {
			one.Policy, one.Namespace = policy[:i], policy[i+1:]
		}
		out = append(out, one)
	}
	sortRules(out)
	return out
}

// dryRun is added to the action of a policy that only counts and logs.
const dryRun = " (dry run)"

// walkRBAC calls f with the rules of each RBAC filter, and those that only count and log.
func walkRBAC(v tree, f func(rules tree, shadow bool)) {
	switch v := v.(type) {
	case map[string]any:
		if kindOf(v) == "RBAC" || kindOf(v) == "RBACPerRoute" {
			for _, name := range []string{"rules", "shadowRules"} {
				for _, rules := range []tree{at(v, name), at(v, "rbac", name)} {
					if rules != nil {
						f(rules, name == "shadowRules")
					}
				}
			}
			return
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			walkRBAC(v[key], f)
		}
	case []any:
		for _, one := range v {
			walkRBAC(one, f)
		}
	}
}

// Find returns how a ztunnel takes a pod: its protocol, its waypoint; ok is false when it does not know it.
func (z *Ztunnel) Find(namespace, name string) (protocol, waypoint string, ok bool) {
	w := z.pod(namespace, name)
	if w == nil {
		return "", "", false
	}
	return text(w, "protocol"), z.waypoint(w), true
}

// pod is the workload of a pod; nil when it is not known.
func (z *Ztunnel) pod(namespace, name string) tree {
	for _, w := range z.workloads {
		if text(w, "namespace") == namespace && text(w, "name") == name {
			return w
		}
	}
	return nil
}

// Authorization returns what a ztunnel enforces for a pod; for all pods together when the name is empty.
func (z *Ztunnel) Authorization(namespace, name string) ([]Rules, error) {
	var named []any
	if name != "" {
		w := z.pod(namespace, name)
		if w == nil {
			return nil, fmt.Errorf("ztunnel does not know pod %s in namespace %s: is the pod in the mesh, and ztunnel connected to the control plane?", name, namespace)
		}
		named = list(w, "authorizationPolicies")
	}
	out := []Rules{}
	for _, p := range z.policies {
		key := text(p, "namespace") + "/" + text(p, "name")
		switch scope := strings.ToLower(text(p, "scope")); {
		case name == "" || scope == "global":
		case scope == "namespace" && text(p, "namespace") == namespace:
		case slices.Contains(named, any(key)):
		default:
			continue
		}
		action := strings.ToUpper(text(p, "action"))
		if dry, _ := at(p, "dryRun").(bool); dry {
			action += dryRun
		}
		out = append(out, Rules{
			Action: action, Policy: text(p, "name"), Namespace: text(p, "namespace"), Rules: len(list(p, "rules")),
		})
	}
	sortRules(out)
	return out, nil
}
