package deploy

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// What parameters may hold.
const (
	keyDeployment     = "deployment"
	keyService        = "service"
	keyServiceAccount = "serviceAccount"
	keyAutoscaler     = "horizontalPodAutoscaler"
	keyDisruption     = "podDisruptionBudget"
)

// overlaid applies the parameters of the class and then those of the Gateway.
func (r *renderer) overlaid(objects Objects, custom map[string]string) (Objects, error) {
	class := string(r.gw.Spec.GatewayClassName)
	var problems []error
	for _, layer := range []struct {
		from   string
		values map[string]string
	}{{"parameters of class " + class, r.values.Classes[class]}, {"parameters", custom}} {
		for _, key := range slices.Sorted(maps.Keys(layer.values)) {
			if err := r.overlay(&objects, key, layer.values[key]); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", layer.from, err))
			}
		}
	}
	if err := errors.Join(problems...); err != nil {
		return Objects{}, err
	}
	tellGrace(objects.Deployment)
	return objects, nil
}

func (r *renderer) overlay(o *Objects, key, text string) error {
	var err error
	switch key {
	case keyDeployment:
		err = patch(o.Deployment, text)
	case keyService:
		err = patch(o.Service, text)
	case keyServiceAccount:
		err = patch(o.ServiceAccount, text)
	case keyAutoscaler:
		if o.Autoscaler == nil {
			o.Autoscaler = r.autoscaler()
		}
		err = patch(o.Autoscaler, text)
	case keyDisruption:
		if o.Disruption == nil {
			o.Disruption = r.disruption()
		}
		err = patch(o.Disruption, text)
	default:
		return fmt.Errorf("%q is none of %s, %s, %s, %s, %s", key, keyDeployment, keyService, keyServiceAccount, keyAutoscaler, keyDisruption)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// patch changes target as `kubectl patch` does: fields one by one, lists by their keys, null takes away.
func patch[T any](target *T, text string) error {
	change, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		return err
	}
	var fields map[string]any
	if err := json.Unmarshal(change, &fields); err != nil {
		return errors.New("not an object in YAML")
	}
	if len(fields) == 0 {
		return nil
	}
	if metadata, ok := fields["metadata"].(map[string]any); ok {
		for _, fixed := range []string{"name", "namespace", "ownerReferences"} {
			if _, says := metadata[fixed]; says {
				return fmt.Errorf("metadata.%s cannot be changed", fixed)
			}
		}
	}
	original, err := json.Marshal(target)
	if err != nil {
		return err
	}
	var empty, fresh T
	result, err := strategicpatch.StrategicMergePatch(original, change, empty)
	if err != nil {
		return err
	}
	unknown, err := kjson.UnmarshalStrict(result, &fresh)
	if err := errors.Join(append(unknown, err)...); err != nil {
		return err
	}
	*target = fresh
	return nil
}

// tellGrace has the proxy know how long it may take to end, also when the parameters say another time.
func tellGrace(d *appsv1.Deployment) {
	spec := &d.Spec.Template.Spec
	if spec.TerminationGracePeriodSeconds == nil {
		return
	}
	for i := range spec.Containers {
		for j := range spec.Containers[i].Env {
			if e := &spec.Containers[i].Env[j]; spec.Containers[i].Name == ContainerName && e.Name == graceName {
				e.Value = strconv.FormatInt(*spec.TerminationGracePeriodSeconds, 10)
			}
		}
	}
}
