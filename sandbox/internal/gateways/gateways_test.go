package gateways_test

import (
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy"
	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy/deploytest"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/gateways"
)

func summary(s gatewayv1.GatewayStatus) string {
	var parts []string
	for _, a := range s.Addresses {
		parts = append(parts, string(*a.Type)+"="+a.Value)
	}
	for _, c := range s.Conditions {
		parts = append(parts, c.Type+"="+string(c.Status)+":"+c.Reason)
	}
	return strings.Join(parts, " ")
}

func TestStatus(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	gw := deploytest.Gateway(t, deploytest.Waypoint)
	const controller = "istio.io/mesh-controller"
	objects, err := deploy.Render(deploy.Request{Gateway: gw, Controller: controller})
	if err != nil {
		t.Fatal(err)
	}
	step := func(want string, state gateways.State) {
		t.Helper()
		gw.Status = gateways.Status(gw, controller, state, now)
		if got := summary(gw.Status); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		now = now.Add(time.Hour)
	}
	service := objects.Service.DeepCopy()
	step("Accepted=True:Accepted Programmed=False:AddressNotAssigned", gateways.State{Service: service})
	service.Spec.ClusterIP, service.Spec.ClusterIPs = "10.96.0.40", []string{"10.96.0.40"}
	step("Accepted=True:Accepted Programmed=False:NoResources", gateways.State{Service: service})
	const known = "IPAddress=10.96.0.40 Hostname=waypoint.default.svc.cluster.local "
	step(known+"Accepted=True:Accepted Programmed=True:Programmed", gateways.State{Service: service, Ready: 1})
	since := gw.Status.Conditions[1].LastTransitionTime
	step(known+"Accepted=True:Accepted Programmed=True:Programmed", gateways.State{Service: service, Ready: 2})
	if at := gw.Status.Conditions[1].LastTransitionTime; !at.Equal(&since) {
		t.Errorf("nothing has changed, but the time has, from %v to %v", since, at)
	}
	if at := gw.Status.Conditions[0].LastTransitionTime; at.After(time.Unix(1_700_000_001, 0)) {
		t.Errorf("Accepted since %v", at)
	}
	// Whoever is bound to it is not let past it while it is down.
	step(known+"Accepted=True:Accepted Programmed=False:NoResources", gateways.State{Service: service})
	step("Accepted=True:Accepted Programmed=False:AddressNotAssigned", gateways.State{})
	gw.Status.Conditions = append(gw.Status.Conditions, metav1.Condition{Type: "Z", Status: "True", Reason: "Others"})
	step("Accepted=False:InvalidParameters Programmed=False:Invalid Z=True:Others", gateways.State{Problem: os.ErrInvalid})
}
