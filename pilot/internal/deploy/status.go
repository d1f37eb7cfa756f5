package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy"
)

// statusManager owns a Gateway's addresses and the one condition. All other conditions and the listeners are written by whoever
// judges them, from the registry; the two never write the same field.
const statusManager = "istio.io/gateway-controller-addresses"

// ConditionDeployed is what the registry makes the Gateway's Accepted of.
const ConditionDeployed = registry.ConditionDeployed

// asSpecified are the addresses of a Gateway that somebody else has deployed and told where.
func asSpecified(gw *gatewayv1.Gateway) (out []gatewayv1.GatewayStatusAddress) {
	for _, a := range gw.Spec.Addresses {
		kind := gatewayv1.IPAddressType
		if a.Type != nil {
			kind = *a.Type
		}
		if a.Value != "" {
			out = append(out, gatewayv1.GatewayStatusAddress{Type: &kind, Value: a.Value})
		}
	}
	return out
}

// foreignAddresses are those of the Services that a Gateway names as where it is.
func (r *run) foreignAddresses(ctx context.Context, gw *gatewayv1.Gateway) (out []gatewayv1.GatewayStatusAddress, err error) {
	for _, a := range asSpecified(gw) {
		if *a.Type != gatewayv1.HostnameAddressType {
			out = append(out, a)
			continue
		}
		name, namespace, ok := r.serviceName(a.Value, gw.Namespace)
		if !ok {
			out = append(out, a)
			continue
		}
		s, err := r.client.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the Service of a Gateway: %w", err)
		}
		out = append(out, deploy.Addresses(gw, deploy.ControllerGateway, s, r.cfg.Domain)...)
	}
	return out, nil
}

// serviceName takes apart the name of a Service: name, or name.namespace.svc.domain.
func (r *run) serviceName(host, namespace string) (string, string, bool) {
	short, ok := strings.CutSuffix(host, ".svc."+r.cfg.Domain)
	if !ok {
		return host, namespace, !strings.Contains(host, ".")
	}
	name, in, ok := strings.Cut(short, ".")
	return name, in, ok && !strings.Contains(in, ".")
}

// writeAddresses writes where a Gateway is reached, and why it is not deployed, if anything of it has changed.
func (r *run) writeAddresses(ctx context.Context, gw *gatewayv1.Gateway, addresses []gatewayv1.GatewayStatusAddress, problem error) error {
	status := gatewayv1.GatewayStatus{Addresses: addresses}
	before := meta.FindStatusCondition(gw.Status.Conditions, ConditionDeployed)
	if problem != nil {
		next := metav1.Condition{
			Type: ConditionDeployed, Status: metav1.ConditionFalse, ObservedGeneration: gw.Generation,
			Reason: string(gatewayv1.GatewayReasonInvalidParameters), Message: message(problem), LastTransitionTime: metav1.NewTime(time.Now().Truncate(time.Second)),
		}
		if before != nil && before.Status == next.Status {
			next.LastTransitionTime = before.LastTransitionTime
		}
		status.Conditions = []metav1.Condition{next}
	}
	same := before == nil && problem == nil || before != nil && problem != nil && equality.Semantic.DeepEqual(*before, status.Conditions[0])
	if same && equality.Semantic.DeepEqual(gw.Status.Addresses, addresses) || len(gw.Status.Addresses) == 0 && len(addresses) == 0 && same {
		return nil
	}
	text, err := json.Marshal(map[string]any{
		"apiVersion": gatewayv1.GroupVersion.String(), "kind": "Gateway",
		"metadata": map[string]any{"namespace": gw.Namespace, "name": gw.Name, "uid": gw.UID},
		"status":   statusFields(status),
	})
	if err != nil {
		return err
	}
	force := true
	_, err = r.dynamic.Resource(gateways()).Namespace(gw.Namespace).Patch(ctx, gw.Name, types.ApplyPatchType, text,
		metav1.PatchOptions{FieldManager: statusManager, Force: &force}, "status")
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("write the addresses: %w", err)
	}
	return nil
}

// statusFields leaves out a condition that is none: the API server then takes away the one that was written before. The addresses
// are always there, as a status with nothing in it is refused.
func statusFields(s gatewayv1.GatewayStatus) map[string]any {
	out := map[string]any{"addresses": s.Addresses}
	if len(s.Addresses) == 0 {
		out["addresses"] = []any{}
	}
	if len(s.Conditions) > 0 {
		out["conditions"] = s.Conditions
	}
	return out
}

// maxMessage is what the API allows a condition's message.
const maxMessage = 32768

func message(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	return strings.ToValidUTF8(text[:min(len(text), maxMessage)], "")
}
