// Package render turns an installation (iop.Operator) into objects. It is pure: no cluster is asked, the same input gives the same objects.
//
// render.go goes through the components, values.go decides which values each chart gets and refuses those that none reads, gateway.go
// translates the values of gateways, kubernetes.go applies the k8s settings of a component, overlay.go its overlays.
package render

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/operator/charts"
	"github.com/isthmus-mesh/isthmus/operator/iop"
)

// Names of the components, as Istio labels their objects.
const (
	Base            = "Base"
	Pilot           = "Pilot"
	CNI             = "Cni"
	Ztunnel         = "Ztunnel"
	IstiodRemote    = "IstiodRemote"
	IngressGateways = "IngressGateways"
	EgressGateways  = "EgressGateways"
)

// Labels of every object.
const (
	LabelComponent = "operator.istio.io/component"
	LabelOwner     = "install.operator.istio.io/owning-resource"
	LabelOwnerNS   = "install.operator.istio.io/owning-resource-namespace"
	LabelRevision  = "istio.io/rev"
	LabelManaged   = "operator.istio.io/managed"
	LabelVersion   = "operator.istio.io/version"
)

// Owner is the name of an installation that its file does not name.
const Owner = "installed-state"

// Options are what the installer knows.
type Options struct {
	// Hub and Tag of the images, for installations that name none. Empty: those of the charts.
	Hub, Tag string
	// Version of the installer.
	Version string
	// Namespace of the control plane, for installations that name none.
	Namespace string
	// Charts are the charts to use; nil are the built-in ones. An installation's installPackagePath counts before it.
	Charts fs.FS
	// Force has values that no chart reads accepted.
	Force bool
	// KubeVersion is what templates learn as the cluster's version. Empty: the oldest that is supported.
	KubeVersion string
}

// Component is a rendered component.
type Component struct {
	Name      string
	Namespace string
	Objects   []*unstructured.Unstructured
}

// Installation is all that is to be installed, in that order.
type Installation struct {
	Owner, Namespace, Revision string
	Components                 []Component
}

// Objects returns those of all components.
func (i *Installation) Objects() []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	for _, c := range i.Components {
		out = append(out, c.Objects...)
	}
	return out
}

// Render returns the objects of an installation.
func Render(op *iop.Operator, o Options) (*Installation, error) {
	r, err := newRenderer(op, o)
	if err != nil {
		return nil, err
	}
	if problems := r.check(); len(problems) > 0 && !o.Force {
		return nil, errors.Join(problems...)
	}
	out := &Installation{Owner: cmp.Or(op.Name, Owner), Namespace: r.namespace, Revision: r.revision}
	for _, part := range r.parts() {
		if !part.settings.On() {
			continue
		}
		objects, err := r.part(part)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", part.path, err)
		}
		// Several gateways are one component.
		if last := len(out.Components) - 1; last >= 0 && out.Components[last].Name == part.name {
			out.Components[last].Objects = append(out.Components[last].Objects, objects...)
			continue
		}
		out.Components = append(out.Components, Component{part.name, part.namespace, objects})
	}
	for _, c := range out.Components {
		r.label(c, out)
	}
	return out, nil
}

// renderer has what the components of one installation share.
type renderer struct {
	op                  *iop.Operator
	o                   Options
	charts              fs.FS
	namespace, revision string
	values              map[string]any // validated ones, under those that are not validated
}

func newRenderer(op *iop.Operator, o Options) (*renderer, error) {
	r := &renderer{op: op, o: o, charts: o.Charts, revision: cmp.Or(op.Spec.Revision, "default")}
	if r.charts == nil {
		r.charts = charts.FS()
	}
	if dir := op.Spec.InstallPackagePath; dir != "" {
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("spec.installPackagePath: %w", err)
		}
		r.charts = os.DirFS(dir)
	}
	r.values = merge(op.Spec.Values, op.Spec.UnvalidatedValues)
	global, _ := r.values["global"].(map[string]any)
	named, _ := global["istioNamespace"].(string)
	r.namespace = cmp.Or(op.Spec.Namespace, named, o.Namespace, "istio-system")
	if o.Namespace != "" && o.Namespace != "istio-system" {
		r.namespace = o.Namespace
	}
	if named != "" {
		r.namespace = named
	}
	return r, nil
}

// part is a component to render.
type part struct {
	name, chart, release, namespace string
	path                            string // in the installation
	settings                        iop.Component
	gateway                         *iop.Gateway
}

// parts are all components, in the order in which they are installed.
func (r *renderer) parts() []part {
	c := r.op.Spec.Components
	out := []part{
		{name: Base, chart: "base", release: "istio-base", settings: c.Base, path: "spec.components.base"},
		{name: Pilot, chart: "istiod", release: "istiod", settings: c.Pilot, path: "spec.components.pilot"},
		{name: IstiodRemote, chart: "istiod", release: "istiod-remote", settings: c.IstiodRemote, path: "spec.components.istiodRemote"},
		{name: CNI, chart: "cni", release: "istio-cni", settings: c.CNI, path: "spec.components.cni"},
		{name: Ztunnel, chart: "ztunnel", release: "ztunnel", settings: c.Ztunnel, path: "spec.components.ztunnel"},
	}
	for i := range c.IngressGateways {
		g := &c.IngressGateways[i]
		out = append(out, part{
			name: IngressGateways, chart: "gateway", release: cmp.Or(g.Name, "istio-ingressgateway"), settings: g.Component, gateway: g,
			path: fmt.Sprintf("spec.components.ingressGateways[%d]", i),
		})
	}
	for i := range c.EgressGateways {
		g := &c.EgressGateways[i]
		out = append(out, part{
			name: EgressGateways, chart: "gateway", release: cmp.Or(g.Name, "istio-egressgateway"), settings: g.Component, gateway: g,
			path: fmt.Sprintf("spec.components.egressGateways[%d]", i),
		})
	}
	for i := range out {
		out[i].namespace = cmp.Or(out[i].settings.Namespace, r.namespace)
	}
	return out
}

// part renders one component.
func (r *renderer) part(p part) ([]*unstructured.Unstructured, error) {
	values, err := r.valuesOf(p)
	if err != nil {
		return nil, err
	}
	objects, err := Chart(r.charts, p.chart, p.release, p.namespace, values, r.o.KubeVersion)
	if err != nil {
		return nil, err
	}
	if err := applySettings(objects, p); err != nil {
		return nil, err
	}
	return objects, nil
}

// Chart renders a chart as Helm would install it as release into namespace. Values are not validated.
func Chart(dir fs.FS, name, release, namespace string, values map[string]any, kubeVersion string) ([]*unstructured.Unstructured, error) {
	c, err := charts.Load(dir, name)
	if err != nil {
		return nil, err
	}
	capabilities := common.DefaultCapabilities.Copy()
	version, err := common.ParseKubeVersion(cmp.Or(kubeVersion, "v1.30.0"))
	if err != nil {
		return nil, fmt.Errorf("version of the cluster: %w", err)
	}
	capabilities.KubeVersion = *version
	context, err := util.ToRenderValuesWithSchemaValidation(c, values, common.ReleaseOptions{
		Name: release, Namespace: namespace, Revision: 1, IsInstall: true,
	}, capabilities, true)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(c, context)
	if err != nil {
		return nil, plain(err)
	}
	var out []*unstructured.Unstructured
	names := make([]string, 0, len(files))
	for file := range files {
		names = append(names, file)
	}
	slices.Sort(names)
	for _, file := range names {
		if !strings.HasSuffix(file, ".yaml") {
			continue
		}
		objects, err := Decode([]byte(files[file]))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		out = append(out, objects...)
	}
	sortByKind(out)
	return out, nil
}

// plain leaves of a template's error what the chart says.
func plain(err error) error {
	if _, said, ok := strings.Cut(err.Error(), "error calling fail: "); ok {
		return errors.New(said)
	}
	return err
}

// Decode reads the objects of YAML documents.
func Decode(data []byte) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for document := range strings.SplitSeq("\n"+string(data), "\n---") {
		json, err := yaml.YAMLToJSON([]byte(document))
		if err != nil {
			return nil, err
		}
		if string(json) == "null" {
			continue
		}
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(json); err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, nil
}

// label puts the labels by which the objects of an installation are found.
func (r *renderer) label(c Component, i *Installation) {
	for _, u := range c.Objects {
		labels := u.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[LabelComponent] = c.Name
		labels[LabelOwner] = i.Owner
		labels[LabelOwnerNS] = cmp.Or(r.op.Namespace, r.namespace)
		labels[LabelManaged] = "Reconcile"
		labels[LabelVersion] = cmp.Or(r.o.Version, "unknown")
		labels[LabelRevision] = r.revision
		if Shared(c.Name) {
			labels[LabelRevision] = "default"
		}
		delete(labels, "app.kubernetes.io/managed-by")
		delete(labels, "helm.sh/chart")
		u.SetLabels(labels)
	}
}

// Shared tells whether all revisions share a component.
func Shared(component string) bool {
	return component == Base || component == CNI || component == Ztunnel
}

// sortByKind puts objects in the order in which they are applied: what others need first.
func sortByKind(objects []*unstructured.Unstructured) {
	order := []string{
		"Namespace", "CustomResourceDefinition", "ResourceQuota", "ServiceAccount", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding",
		"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ConfigMap", "Secret", "NetworkPolicy", "Service", "EndpointSlice",
		"Deployment", "DaemonSet", "PodDisruptionBudget", "HorizontalPodAutoscaler", "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration",
	}
	rank := func(u *unstructured.Unstructured) int {
		if at := slices.Index(order, u.GetKind()); at >= 0 {
			return at
		}
		return len(order)
	}
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.GetName(), b.GetName()))
	})
}
