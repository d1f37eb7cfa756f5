package reach

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// manager is whose fields are those that commands write.
const manager = "istioctl"

// page is how many objects are asked for at a time.
const page = 500

// cluster is a place behind a Kubernetes API.
type cluster struct {
	config  *rest.Config
	client  kubernetes.Interface
	objects dynamic.Interface
}

// Cluster returns the mesh of a cluster; namespace is that of names that have none.
func Cluster(config *rest.Config, namespace string) (*Mesh, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Mesh{place: &cluster{config, client, objects}, Default: namespace}, nil
}

// found names what is not there alike everywhere.
func found(err error) error {
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}

func (c *cluster) pods(ctx context.Context, namespace, selector string) ([]Pod, error) {
	var out []Pod
	options := metav1.ListOptions{LabelSelector: selector, Limit: page}
	for {
		list, err := c.client.CoreV1().Pods(namespace).List(ctx, options)
		if err != nil {
			return nil, err
		}
		for i := range list.Items {
			out = append(out, podOf(&list.Items[i]))
		}
		if options.Continue = list.Continue; options.Continue == "" {
			return out, nil
		}
	}
}

func podOf(p *corev1.Pod) Pod {
	out := Pod{Namespace: p.Namespace, Name: p.Name, Node: p.Spec.NodeName, Labels: p.Labels}
	out.Running = p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil
	for _, c := range p.Status.Conditions {
		out.Ready = out.Ready || c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	}
	return out
}

func (c *cluster) pod(ctx context.Context, namespace, name string) (Pod, error) {
	p, err := c.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return Pod{}, found(err)
	}
	return podOf(p), nil
}

func (c *cluster) selector(ctx context.Context, kind, namespace, name string) (string, error) {
	options := metav1.GetOptions{}
	var selector *metav1.LabelSelector
	switch kind {
	case "deployment":
		o, err := c.client.AppsV1().Deployments(namespace).Get(ctx, name, options)
		if err != nil {
			return "", found(err)
		}
		selector = o.Spec.Selector
	case "daemonset":
		o, err := c.client.AppsV1().DaemonSets(namespace).Get(ctx, name, options)
		if err != nil {
			return "", found(err)
		}
		selector = o.Spec.Selector
	case "statefulset":
		o, err := c.client.AppsV1().StatefulSets(namespace).Get(ctx, name, options)
		if err != nil {
			return "", found(err)
		}
		selector = o.Spec.Selector
	case "replicaset":
		o, err := c.client.AppsV1().ReplicaSets(namespace).Get(ctx, name, options)
		if err != nil {
			return "", found(err)
		}
		selector = o.Spec.Selector
	case "job":
		o, err := c.client.BatchV1().Jobs(namespace).Get(ctx, name, options)
		if err != nil {
			return "", found(err)
		}
		selector = o.Spec.Selector
	case "service":
		o, err := c.client.CoreV1().Services(namespace).Get(ctx, name, options)
		if err != nil {
			return "", found(err)
		}
		if len(o.Spec.Selector) == 0 {
			return "", fmt.Errorf("the service has no selector, so no pods are its own")
		}
		return labels.SelectorFromSet(o.Spec.Selector).String(), nil
	default:
		return "", fmt.Errorf("a %s has no pods", kind)
	}
	return metav1.FormatLabelSelector(selector), nil
}

func (c *cluster) dial(ctx context.Context, pod Pod, port int) (net.Conn, error) {
	url := c.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("portforward").URL()
	return forward(ctx, c.config, url, port)
}

func (c *cluster) logs(ctx context.Context, pod Pod, which Logs) (io.ReadCloser, error) {
	options := &corev1.PodLogOptions{Container: which.Container, Previous: which.Previous, Timestamps: false}
	if !which.Since.IsZero() {
		options.SinceTime = &metav1.Time{Time: which.Since}
	}
	if which.Most > 0 {
		options.LimitBytes = &which.Most
	}
	out, err := c.client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, options).Stream(ctx)
	return out, found(err)
}

func (c *cluster) on(kind Kind, namespace string) dynamic.ResourceInterface {
	all := c.objects.Resource(schema.GroupVersionResource{Group: kind.Group, Version: kind.Version, Resource: kind.Plural})
	if kind.Cluster || namespace == "" {
		return all
	}
	return all.Namespace(namespace)
}

func (c *cluster) list(ctx context.Context, kind Kind, namespace string) ([]unstructured.Unstructured, error) {
	var out []unstructured.Unstructured
	options := metav1.ListOptions{Limit: page}
	for {
		list, err := c.on(kind, namespace).List(ctx, options)
		if err != nil {
			return nil, found(err)
		}
		out = append(out, list.Items...)
		if options.Continue = list.GetContinue(); options.Continue == "" {
			return out, nil
		}
	}
}

func (c *cluster) get(ctx context.Context, kind Kind, namespace, name string) (*unstructured.Unstructured, error) {
	o, err := c.on(kind, namespace).Get(ctx, name, metav1.GetOptions{})
	return o, found(err)
}

func (c *cluster) apply(ctx context.Context, kind Kind, o *unstructured.Unstructured) error {
	_, err := c.on(kind, o.GetNamespace()).Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: manager, Force: true})
	return found(err)
}

func (c *cluster) label(ctx context.Context, kind Kind, namespace, name string, labels map[string]*string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels}})
	if err != nil {
		return err
	}
	_, err = c.on(kind, namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: manager})
	return found(err)
}

func (c *cluster) remove(ctx context.Context, kind Kind, namespace, name string) error {
	return found(c.on(kind, namespace).Delete(ctx, name, metav1.DeleteOptions{}))
}
