package ambient

import (
	"strings"
	"testing"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

func entryVisibility(t *testing.T, text string) *EntryVisibility {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	v, err := ReadEntryVisibility(raw)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func namespaceWith(name string, labels map[string]string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
}

// The first policy whose rules all match decides, then the default; a policy without rules holds everywhere.
func TestVisibilityOfEntries(t *testing.T) {
	t.Parallel()
	const nested = `{serviceEntryVisibility: {defaultVisibility: NAMESPACE, policies: [
		{visibility: NONE, matchingRules: [{namespaceSelector: {matchLabels: {team: a}}}, {namespaceSelector: {matchExpressions: [{key: trusted, operator: DoesNotExist}]}}]},
		{visibility: PUBLIC, matchingRules: [{namespaceSelector: {matchExpressions: [{key: team, operator: In, values: [a, b]}]}}]},
		{matchingRules: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: named}}}]},
		{visibility: NONE, matchingRules: [{namespaceSelector: {matchLabels: {team: b}}}]}]}}`
	for _, c := range []struct {
		config string
		ns     *corev1.Namespace
		want   Visibility
	}{
		{`{}`, namespaceWith("x", nil), VisibleToAll},
		{`{serviceEntryVisibility: null}`, namespaceWith("x", nil), VisibleToAll},
		{`{serviceEntryVisibility: {}}`, namespaceWith("x", nil), VisibleToAll},
		{`{serviceEntryVisibility: {defaultVisibility: VISIBILITY_UNSPECIFIED}}`, namespaceWith("x", nil), VisibleToAll},
		{`{serviceEntryVisibility: {defaultVisibility: PUBLIC}}`, namespaceWith("x", nil), VisibleToAll},
		{`{serviceEntryVisibility: {defaultVisibility: NAMESPACE}}`, namespaceWith("x", nil), VisibleToNamespace},
		{`{serviceEntryVisibility: {defaultVisibility: NONE}}`, namespaceWith("x", nil), VisibleToNone},
		{`{serviceEntryVisibility: {defaultVisibility: 2}}`, namespaceWith("x", nil), VisibleToNamespace},
		{`{service_entry_visibility: {default_visibility: NONE}}`, namespaceWith("x", nil), VisibleToNone},
		{nested, namespaceWith("x", nil), VisibleToNamespace},
		{nested, namespaceWith("x", map[string]string{"team": "a"}), VisibleToNone},
		{nested, namespaceWith("x", map[string]string{"team": "a", "trusted": ""}), VisibleToAll},
		{nested, namespaceWith("x", map[string]string{"team": "b"}), VisibleToAll},
		{nested, namespaceWith("named", nil), VisibleToAll},
		{nested, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "named", Labels: map[string]string{"kubernetes.io/metadata.name": "forged"}}}, VisibleToAll},
		{`{serviceEntryVisibility: {defaultVisibility: NONE, policies: [{visibility: NAMESPACE}]}}`, namespaceWith("x", nil), VisibleToNamespace},
		{`{serviceEntryVisibility: {defaultVisibility: NONE, policies: [{visibility: NAMESPACE, matchingRules: [{namespaceSelector: {}}]}]}}`, namespaceWith("x", nil), VisibleToNamespace},
	} {
		v := entryVisibility(t, c.config)
		if got := v.Of(c.ns.Name, c.ns); got != c.want {
			t.Errorf("%s: %s of %s %v, want %s", c.config, got, c.ns.Name, c.ns.Labels, c.want)
		}
		if again := entryVisibility(t, c.config); !v.Equal(again) || v.Configured() != again.Configured() {
			t.Errorf("%s is not equal to itself", c.config)
		}
	}
	if v := entryVisibility(t, nested); v.Of("named", nil) != VisibleToAll || v.Of("x", nil) != VisibleToNamespace {
		t.Error("of a namespace that is not known, the name is")
	}
	if entryVisibility(t, `{}`).Equal(entryVisibility(t, `{serviceEntryVisibility: {}}`)) {
		t.Error("a mesh that speaks of visibility is like one that does not")
	}
	if a, b := entryVisibility(t, `{serviceEntryVisibility: {applyToSidecars: true}}`), entryVisibility(t, `{serviceEntryVisibility: {}}`); !a.EveryProxy() || b.EveryProxy() || a.Equal(b) {
		t.Error("applyToSidecars has no effect")
	}
}

// What is wrong is refused: the field is named, and where it can be known, what to write instead.
func TestVisibilityRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`serviceEntryVisibility: NAMESPACE`:                                                      "serviceEntryVisibility: it is a message, not a word: write serviceEntryVisibility: {defaultVisibility: NAMESPACE}",
		`serviceEntryVisibility: none`:                                                           "write serviceEntryVisibility: {defaultVisibility: NONE}",
		`serviceEntryVisibility: SOME`:                                                           "write serviceEntryVisibility: {defaultVisibility: NAMESPACE}",
		`serviceEntryVisibility: [NAMESPACE]`:                                                    "serviceEntryVisibility: a list cannot be used here, want an object",
		`serviceEntryVisibility: {defaultVisibility: NAMSPACE}`:                                  `serviceEntryVisibility.defaultVisibility: "NAMSPACE" is not one of VISIBILITY_UNSPECIFIED, NONE, NAMESPACE, PUBLIC`,
		`serviceEntryVisibility: {defaultVisibility: false}`:                                     "serviceEntryVisibility.defaultVisibility: a boolean cannot be used here, want one of VISIBILITY_UNSPECIFIED, NONE",
		`serviceEntryVisibility: {defaultVisibility: 9}`:                                         "serviceEntryVisibility.defaultVisibility: 9 is not one of PUBLIC, NAMESPACE, NONE",
		`serviceEntryVisibility: {default: NAMESPACE}`:                                           "serviceEntryVisibility.default: ServiceEntryVisibility has no such field",
		`serviceEntryVisibility: {policies: {visibility: NONE}}`:                                 "serviceEntryVisibility.policies: a object cannot be used here, want a list",
		`serviceEntryVisibility: {policies: [{visibility: ALL}]}`:                                `serviceEntryVisibility.policies[0].visibility: "ALL" is not one of`,
		`serviceEntryVisibility: {policies: [{visibility: 7}]}`:                                  "serviceEntryVisibility.policies[0].visibility: 7 is not one of",
		`serviceEntryVisibility: {policies: [{matchingRules: [{}]}]}`:                            "serviceEntryVisibility.policies[0].matchingRules[0]: it has no matcher: give it a namespaceSelector",
		`serviceEntryVisibility: {policies: [{matchingRules: [{hostnameSuffix: example.com}]}]}`: "serviceEntryVisibility.policies[0].matchingRules[0].hostnameSuffix: MatchRule has no such field",
		`serviceEntryVisibility: {policies: [{}, {matchingRules: [{namespaceSelector: {matchExpressions: [{key: a, operator: Like}]}}]}]}`:       `serviceEntryVisibility.policies[1].matchingRules[0].namespaceSelector: "Like" is not a valid label selector operator`,
		`serviceEntryVisibility: {policies: [{matchingRules: [{namespaceSelector: {}}, {namespaceSelector: {matchLabels: {"a b": c}}}]}]}`:       "serviceEntryVisibility.policies[0].matchingRules[1].namespaceSelector: ",
		`serviceEntryVisibility: {policies: [{matchingRules: [{namespaceSelector: {matchExpressions: [{key: a, operator: In, values: []}]}}]}]}`: "serviceEntryVisibility.policies[0].matchingRules[0].namespaceSelector: ",
		`service_entry_visibility: NONE`: "service_entry_visibility: it is a message, not a word",
	} {
		raw, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ReadEntryVisibility(raw); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// An entry is published with its visibility, or not at all; one of its namespace's own is not bound to a waypoint of another one.
func TestEntriesByVisibility(t *testing.T) {
	t.Parallel()
	waypoints := Waypoints{Get: func(key string) *Waypoint {
		ns, name, _ := strings.Cut(key, "/")
		return &Waypoint{Namespace: ns, Name: name, For: "service", From: gatewayv1.NamespacesFromAll, Address: &workload.GatewayAddress{HboneMtlsPort: hbonePort}}
	}}
	for _, c := range []struct {
		visibility, waypointNamespace, mode string
		services                            int
		wire                                workload.Service_Visibility
		reason                              string
		used                                bool
	}{
		{"PUBLIC", "far", "", 1, workload.Service_PUBLIC, ReasonWaypointAccepted, true},
		{"PUBLIC", "", "", 1, workload.Service_PUBLIC, ReasonWaypointAccepted, true},
		{"NAMESPACE", "", "", 1, workload.Service_NAMESPACE, ReasonWaypointAccepted, true},
		{"NAMESPACE", "near", "", 1, workload.Service_NAMESPACE, ReasonWaypointAccepted, true},
		{"NAMESPACE", "far", "", 1, workload.Service_NAMESPACE, ReasonCrossNamespace, false},
		{"NAMESPACE", "far", failClosed, 1, workload.Service_NAMESPACE, ReasonCrossNamespace, true}, // a name that nothing has
		{"NONE", "", "", 0, 0, "", false},
	} {
		se := &networkingv1.ServiceEntry{ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "near", Labels: map[string]string{
			labelUseWaypoint: "wp", labelUseWaypointNamespace: c.waypointNamespace, labelFailureMode: c.mode,
		}}}
		se.Spec.Hosts = []string{"a.example.com"}
		mesh := Mesh{Visibility: entryVisibility(t, "serviceEntryVisibility: {defaultVisibility: "+c.visibility+"}")}
		out := EntryServices(mesh, se, nil, waypoints, nil)
		if len(out) != c.services {
			t.Errorf("%+v: %d services", c, len(out))
		}
		for _, s := range out {
			if s.Proto.Visibility != c.wire || s.Binding.Reason != c.reason || (s.Proto.Waypoint != nil) != c.used {
				t.Errorf("%+v: visibility %s, %+v, waypoint %v", c, s.Proto.Visibility, s.Binding, s.Proto.Waypoint)
			}
			if c.reason == ReasonCrossNamespace && strings.Contains(s.Proto.Waypoint.String(), "far.svc") {
				t.Errorf("%+v: waypoint %v", c, s.Proto.Waypoint)
			}
		}
	}
}
