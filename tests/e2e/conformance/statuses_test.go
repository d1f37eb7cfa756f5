package conformance

import (
	"io/fs"
	"reflect"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/config"
	kubeutils "sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"

	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy"
)

// judged are the tests of the suite that only look at what is said of objects.
func judged() []string {
	return []string{
		"GatewayInvalidFrontendClientCertificateValidation",
		"GatewayInvalidRouteKind",
		"GatewayInvalidTLSConfiguration",
		"GatewayListenerUnsupportedProtocol",
		"GatewayModifyListeners",
		"GatewayObservedGenerationBump",
		"GatewayOptionalAddressValue",
		"GatewaySecretInvalidReferenceGrant",
		"GatewaySecretMissingReferenceGrant",
		"GatewaySecretReferenceGrantAllInNamespace",
		"GatewaySecretReferenceGrantSpecific",
		"GatewayWithAttachedRoutes",
		"GatewayWithAttachedRoutesWithPort8080",
		"GatewayClassObservedGenerationBump",
		"HTTPRouteDisallowedKind",
		"HTTPRouteInvalidCrossNamespaceParentRef",
		"HTTPRouteInvalidParentRefNotMatchingListenerPort",
		"HTTPRouteInvalidParentRefNotMatchingSectionName",
		"HTTPRouteInvalidParentRefSectionNameNotMatchingPort",
		"HTTPRouteObservedGenerationBump",
		"TLSRouteInvalidNoMatchingListenerHostname",
		"TLSRouteInvalidNoMatchingListener",
		"TLSRouteInvalidReferenceGrant",
		"TLSRouteListenerMixedTerminationNotSupported",
		"TLSRouteListenerPassthroughSupportedKinds",
		"TLSRouteListenerTerminateNotSupported",
		"TLSRouteListenerTerminateSupportedKinds",
	}
}

// TestStatuses runs tests of the suite as they are against the control plane's own translation, without a cluster.
func TestStatuses(t *testing.T) {
	secrets := keys(t)
	for _, name := range judged() {
		i := slices.IndexFunc(tests.ConformanceTests, func(c suite.ConformanceTest) bool { return c.ShortName == name })
		if i < 0 {
			t.Errorf("the suite has no test %s", name)
			continue
		}
		test := tests.ConformanceTests[i]
		t.Run(name, func(t *testing.T) { test.Run(t, newSuite(t, secrets)) })
	}
}

// newSuite is what tests of the suite need, with its base manifests applied.
func newSuite(t *testing.T, secrets []client.Object) *suite.ConformanceTestSuite {
	t.Helper()
	m := newMemory(t)
	s := &suite.ConformanceTestSuite{
		Client: m, GatewayClassName: "istio", ControllerName: deploy.ControllerGateway,
		Applier: kubeutils.Applier{
			GatewayClass: "istio", ControllerName: deploy.ControllerGateway, ManifestFS: []fs.FS{manifests()},
		},
		SupportedFeatures: sets.New(supported()...), TimeoutConfig: config.DefaultTimeoutConfig(), CleanupTestResources: true,
		BaseManifests: baseManifests, DisableParallelTests: true,
	}
	patient(&s.TimeoutConfig)
	for _, class := range deploy.BuiltinClasses() {
		create(t, m, class)
	}
	s.Applier.MustApplyWithCleanup(t, m, s.TimeoutConfig, s.BaseManifests, false)
	for _, ns := range []string{suite.InfrastructureNamespace, suite.AppBackendNamespace, suite.WebBackendNamespace} {
		create(t, m, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "ready"},
			Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
		})
	}
	for _, o := range secrets {
		create(t, m, o.DeepCopyObject().(client.Object))
	}
	return s
}

// keys are the certificates and authorities that the suite makes beside its manifests, as far as these tests name them.
func keys(t *testing.T) []client.Object {
	t.Helper()
	infra, web := suite.InfrastructureNamespace, suite.WebBackendNamespace
	_, ca, key := kubeutils.MustCreateCACertConfigMap(t, infra, "tls-checks-ca-certificate")
	out := []client.Object{
		kubeutils.MustCreateSelfSignedCertSecret(t, web, "certificate", []string{"*"}),
		kubeutils.MustCreateSelfSignedCertSecret(t, infra, "tls-validity-checks-certificate", []string{"*", "*.org"}),
		kubeutils.MustCreateCASignedCertSecret(t, infra, "tls-terminate-checks-certificate", []string{"tls.example.com"}, ca, key),
	}
	for name, namespace := range map[string]string{
		"tls-validity-checks-ca-certificate": infra, "tls-validity-checks-per-port-ca-certificate": infra, "web-backend-cm": web,
	} {
		authority, _, _ := kubeutils.MustCreateCACertConfigMap(t, namespace, name)
		out = append(out, authority)
	}
	return out
}

func create(t *testing.T, m *memory, o client.Object) {
	t.Helper()
	if err := m.Create(t.Context(), o); err != nil {
		t.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
}

// patient has each deadline far away: what is waited for is there at once, or never.
func patient(c *config.TimeoutConfig) {
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Type() == reflect.TypeFor[time.Duration]() {
			f.SetInt(int64(20 * time.Second))
		}
	}
	c.DefaultPollInterval = 20 * time.Millisecond
}
