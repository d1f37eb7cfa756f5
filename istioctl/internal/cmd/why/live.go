package why

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/why"
)

func (f *flags) live(*cobra.Command, why.Question, map[string]string) (*why.Report, error) {
	return nil, errors.New("which objects: name manifests by --filename")
}
