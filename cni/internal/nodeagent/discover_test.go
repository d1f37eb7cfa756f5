package nodeagent

import (
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	securityapi "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/cni/internal/discover"
	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
	"github.com/isthmus-mesh/isthmus/cni/internal/nettest"
	"github.com/isthmus-mesh/isthmus/cni/internal/pluginapi"
	"github.com/isthmus-mesh/isthmus/cni/redirect/nft"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// running tells the agent of its pod, which has run since before the agent.
func (b *bed) running(mode string, edit func(*corev1.Pod)) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{LabelDataplaneMode: mode}}}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u1", Annotations: map[string]string{}},
		Spec:       corev1.PodSpec{NodeName: "node-1"},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.5.0.2"}}},
	}
	if value := b.world.annotation("shop/web"); value != "" {
		pod.Annotations[AnnotationRedirection] = value
	}
	if edit != nil {
		edit(pod)
	}
	b.agent.Apply(kube.NamespaceGVK(), []kube.Object{ns}, nil)
	b.agent.Apply(kube.PodGVK(), []kube.Object{pod}, nil)
}

// findable lets the agent find the pod's network namespace.
func (b *bed) findable() {
	b.t.Helper()
	id, err := netns.Identify(b.ns)
	if err != nil {
		b.t.Fatal(err)
	}
	b.world.mu.Lock()
	defer b.world.mu.Unlock()
	b.world.found = map[string]discover.Found{"u1": {Path: b.path, Identity: id}}
}

func (b *bed) said(err error) {
	b.world.mu.Lock()
	defer b.world.mu.Unlock()
	b.world.unanswered = err
}

func (b *bed) history() []string {
	b.world.mu.Lock()
	defer b.world.mu.Unlock()
	return slices.Clone(b.world.history)
}

func TestAPodThatRanBeforeIsFoundAndEnrolled(t *testing.T) {
	b := newBed(t)
	b.running(ModeNone, nil)
	b.agent.Synced()
	if got := b.agent.Statuses(); len(got) != 0 {
		t.Errorf("a pod outside of the mesh is looked for: %+v", got)
	}
	b.running(ModeAmbient, nil)
	b.eventually("looked for", func() bool {
		s := b.agent.Statuses()
		return len(s) == 1 && s[0].Wanted && s[0].Problem == discover.ErrNoProcess.Error()
	})
	if b.agent.unenrolled() != 1 {
		t.Errorf("%d pods are missing in the mesh, want 1", b.agent.unenrolled())
	}
	b.said(errors.New("no tunnel"))
	b.findable()
	b.eventually("pending", func() bool {
		s := b.agent.Statuses()
		return b.world.annotation("shop/web") == RedirectionPending && len(s) == 1 && strings.Contains(s[0].Problem, "no tunnel")
	})
	if b.redirected() || b.agent.unenrolled() != 1 {
		t.Errorf("redirected %t to a tunnel that does not answer; %d missing", b.redirected(), b.agent.unenrolled())
	}
	b.said(nil)
	b.eventually("enrolled", func() bool { return b.world.annotation("shop/web") == RedirectionEnabled && b.redirected() })
	if b.agent.unenrolled() != 0 || !slices.Equal(b.history(), []string{RedirectionPending, RedirectionEnabled}) {
		t.Errorf("%d missing; annotations %q", b.agent.unenrolled(), b.history())
	}
	other := nettest.New(t)
	b.mustAsk(pluginapi.PathDel, "c7", other, "10.5.0.2")
	if !b.served() {
		t.Error("the end of another sandbox took the pod out of the mesh")
	}
	b.mustAsk(pluginapi.PathDel, "c8", b.ns, "10.5.0.2")
	if b.served() {
		t.Error("served after its end")
	}
	b.agent.Apply(kube.PodGVK(), nil, nil)
}

func TestAnAgentWithoutMemoryKeepsWhatIsEnrolled(t *testing.T) {
	b := newBed(t)
	b.findable()
	b.said(errors.New("must not be asked"))
	b.world.annotations["shop/web"] = RedirectionEnabled
	b.running(ModeAmbient, nil)
	b.agent.Synced()
	b.eventually("enrolled", func() bool { return b.served() && b.redirected() })
	b.running(ModeNone, nil)
	b.eventually("un-enrolled", func() bool { return b.world.annotation("shop/web") == "" && !b.served() && !b.redirected() })
	if got := b.history(); !slices.Equal(got, []string{""}) {
		t.Errorf("annotations %q", got)
	}
}

func TestTheNodesNetworkIsNeverAPods(t *testing.T) {
	b := newBed(t)
	id, err := netns.Identify(b.ns)
	if err != nil {
		t.Fatal(err)
	}
	b.agent.cfg.HostNetns = id
	b.objects(ModeAmbient)
	b.agent.Synced()
	if w := b.ask(pluginapi.PathAdd); w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "is the node's") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	b.keeps("afterwards", b.ns, 0)
}

func peerAuthentication(namespace, name string, mode securityapi.PeerAuthentication_MutualTLS_Mode, edit func(*securityv1.PeerAuthentication)) *securityv1.PeerAuthentication {
	p := &securityv1.PeerAuthentication{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	p.Spec.Mtls = &securityapi.PeerAuthentication_MutualTLS{Mode: mode}
	if edit != nil {
		edit(p)
	}
	return p
}

func TestOlderConnectionsAreListedAndCutByStrict(t *testing.T) {
	b := newBed(t)
	nettest.Serve(nettest.Listen(t, b.ns, "0.0.0.0:8080"), "app")
	nettest.Serve(nettest.Listen(t, b.peer, "0.0.0.0:9090"), "peer")
	in, out := nettest.Dial(t, b.peer, "tcp", "10.5.0.2:8080", nettest.Socket{}), nettest.Dial(t, b.ns, "tcp", "10.5.0.1:9090", nettest.Socket{})
	for _, c := range []net.Conn{in, out} {
		if _, err := nettest.Read(c); err != nil {
			t.Fatal(err)
		}
	}
	b.findable()
	b.running(ModeAmbient, nil)
	b.agent.Synced()
	b.eventually("enrolled", func() bool { return b.world.annotation("shop/web") == RedirectionEnabled })
	if got := b.agent.Statuses(); len(got) != 1 || len(got[0].Older) != 2 || b.agent.olderCount() != 2 {
		t.Fatalf("%+v", got)
	}
	b.eventually("both are in the file", func() bool {
		saved, err := loadSaved(b.state)
		return err == nil && len(saved) == 1 && len(saved[0].Older) == 2
	})
	strictMode := peerAuthentication("istio-system", "default", securityapi.PeerAuthentication_MutualTLS_STRICT, nil)
	b.agent.Apply(kube.PeerAuthenticationGVK(), []kube.Object{strictMode}, nil)
	b.eventually("cut", func() bool { return b.agent.olderCount() == 1 })
	if err := in.SetReadDeadline(time.Now().Add(nettest.Timeout)); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Read(make([]byte, 1)); err == nil {
		t.Error("the inbound connection goes on")
	}
	if got, err := nettest.Exchange(out, "!"); err != nil || got != "peer!" {
		t.Errorf("the outbound connection: %q, %v", got, err)
	}
	out.Close()
	b.eventually("forgotten", func() bool { return b.agent.olderCount() == 0 })
}

func TestStrict(t *testing.T) {
	const (
		strictM    = securityapi.PeerAuthentication_MutualTLS_STRICT
		permissive = securityapi.PeerAuthentication_MutualTLS_PERMISSIVE
		unset      = securityapi.PeerAuthentication_MutualTLS_UNSET
	)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Labels: map[string]string{"app": "web"}}}
	forWeb := func(p *securityv1.PeerAuthentication) {
		p.Spec.Selector = &typev1beta1.WorkloadSelector{MatchLabels: map[string]string{"app": "web"}}
	}
	onPort := func(mode securityapi.PeerAuthentication_MutualTLS_Mode) func(*securityv1.PeerAuthentication) {
		return func(p *securityv1.PeerAuthentication) {
			forWeb(p)
			p.Spec.PortLevelMtls = map[uint32]*securityapi.PeerAuthentication_MutualTLS{8080: {Mode: mode}}
		}
	}
	late := func(p *securityv1.PeerAuthentication) { p.CreationTimestamp = metav1.Now() }
	type list = []*securityv1.PeerAuthentication
	mesh := peerAuthentication("istio-system", "m", strictM, nil)
	for name, tt := range map[string]struct {
		policies list
		want     bool
	}{
		"none":                        {nil, false},
		"mesh":                        {list{mesh}, true},
		"namespace overrules mesh":    {list{mesh, peerAuthentication("shop", "n", permissive, nil)}, false},
		"namespace says nothing":      {list{mesh, peerAuthentication("shop", "n", unset, nil)}, true},
		"another namespace":           {list{peerAuthentication("bank", "n", strictM, nil)}, false},
		"workload overrules mesh":     {list{mesh, peerAuthentication("shop", "w", permissive, forWeb)}, false},
		"workload":                    {list{peerAuthentication("shop", "w", strictM, forWeb)}, true},
		"selector in root is no mesh": {list{peerAuthentication("istio-system", "w", strictM, forWeb)}, false},
		"port overrules workload":     {list{peerAuthentication("shop", "w", strictM, onPort(permissive))}, false},
		"port":                        {list{peerAuthentication("shop", "w", permissive, onPort(strictM))}, true},
		"port says nothing":           {list{peerAuthentication("shop", "w", strictM, onPort(unset))}, true},
		"the oldest counts":           {list{peerAuthentication("shop", "a", permissive, late), peerAuthentication("shop", "b", strictM, nil)}, true},
	} {
		if got := strict(tt.policies, "istio-system", pod, 8080); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestSelection(t *testing.T) {
	s, err := ParseSelection(`
- podSelector: {matchLabels: {istio.io/dataplane-mode: ambient}}
- namespaceSelector: {matchLabels: {istio.io/dataplane-mode: ambient}}
  podSelector: {matchExpressions: [{key: istio.io/dataplane-mode, operator: NotIn, values: [none]}]}
- namespaceSelector: {matchLabels: {team: a}}
`)
	if err != nil {
		t.Fatal(err)
	}
	type l = map[string]string
	for _, tt := range []struct {
		pod, namespace l
		want           bool
	}{
		{nil, nil, false},
		{l{LabelDataplaneMode: "ambient"}, nil, true},
		{nil, l{LabelDataplaneMode: "ambient"}, true},
		{l{LabelDataplaneMode: "none"}, l{LabelDataplaneMode: "ambient"}, false},
		{nil, l{"team": "a"}, true},
		{l{"team": "a"}, nil, false},
	} {
		if got := s.matches(tt.pod, tt.namespace); got != tt.want {
			t.Errorf("%v in %v: %t", tt.pod, tt.namespace, got)
		}
	}
	for _, broken := range []string{"{", "- podSelektor: {}", "- podSelector: {matchExpressions: [{key: a, operator: Near}]}"} {
		if _, err := ParseSelection(broken); err == nil {
			t.Errorf("%q was taken", broken)
		}
	}
}

func TestRulesFollowThePodAndAreRepaired(t *testing.T) {
	b := newBed(t)
	b.findable()
	b.running(ModeAmbient, nil)
	b.agent.Synced()
	b.eventually("enrolled", func() bool { return b.world.annotation("shop/web") == RedirectionEnabled && b.redirected() })
	b.running(ModeAmbient, func(p *corev1.Pod) { p.Annotations[plan.AnnotationDNSCapture] = "false" })
	b.eventually("without DNS", func() bool {
		differences, err := nft.Backend{}.Inspect(b.ns, plan.Plan(plan.Pod{DNS: plan.Off}, plan.DefaultConfig()))
		return err == nil && len(differences) == 0
	})
	b.running(ModeAmbient, nil)
	b.eventually("with DNS again", b.redirected)
	if err := (nft.Backend{}).Remove(b.ns); err != nil {
		t.Fatal(err)
	}
	b.agent.inspect()
	if !b.redirected() {
		t.Error("rules that somebody has removed are not repaired")
	}
}
