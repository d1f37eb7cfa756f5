package scenario

import (
	"context"
	"fmt"
	"time"
)

// outsideNamespace is not in the mesh.
const outsideNamespace = "outside"

const strictMesh = `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
`

const outsideURL = "http://details.default.svc.cluster.local:9080/details/0"

// Strict refuses plaintext from a pod that is not in the mesh.
func (b *Bed) Strict(ctx context.Context) {
	b.Report.Section("STRICT: no plaintext from outside the mesh")
	since := time.Now()
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if err := b.mustGet(ctx, outsideNamespace+"/deploy/curl", outsideURL, "author"); err != nil {
			return "", err
		}
		line, err := b.findLog(ctx, since, `direction="inbound"`, `src.namespace="`+outsideNamespace+`"`, `dst.workload="details-v1`)
		if err != nil {
			return "", err
		}
		_ = line
		return "PERMISSIVE (the default): a pod outside the mesh reaches details, without an identity", nil
	})
	b.refusal(ctx, refusal{
		caller: outsideNamespace + "/deploy/curl", url: outsideURL, answer: "author", policyFile: "strict.yaml", policy: strictMesh,
		says: "STRICT refuses plaintext from outside the mesh", log: `explicitly denied by istio-system/istio_converted_static_strict rule\[0\]`,
	})
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if err := b.mustGet(ctx, "default/deploy/curl", outsideURL, "author"); err != nil {
			return "", err
		}
		return "under STRICT, a pod in the mesh reaches the same address", nil
	})
	b.remove(ctx, strictMesh)
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if err := b.mustGet(ctx, outsideNamespace+"/deploy/curl", outsideURL, "author"); err != nil {
			return "", err
		}
		return fmt.Sprintf("without it, pods of namespace %s are served again", outsideNamespace), nil
	})
}
