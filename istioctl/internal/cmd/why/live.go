package why

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/why"
)

// live asks about the mesh that runs.
func (f *flags) live(cmd *cobra.Command, q why.Question, keys map[string]string) (*why.Report, error) {
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	mesh, err := f.g.Mesh()
	if err != nil {
		return nil, err
	}
	if q.Namespace == "" {
		q.Namespace = mesh.Default
	}
	world, err := why.ReadMesh(ctx, mesh, f.g.IstioNamespace)
	if err != nil {
		return nil, err
	}
	model, err := why.NewModel(world, why.Options{KeySets: keys})
	if err != nil {
		return nil, err
	}
	report, err := model.Ask(q)
	if err != nil {
		return nil, err
	}
	model.Compare(ctx, mesh, f.g.IstioNamespace, report)
	if f.probe {
		model.Send(ctx, mesh, report)
	}
	return report, nil
}
