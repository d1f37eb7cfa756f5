package reach

import (
	"context"
	"io"

	"github.com/isthmus-mesh/isthmus/sandbox"
)

func (l *local) execute(ctx context.Context, pod Pod, container string, argv []string, stdout, stderr io.Writer) (int, error) {
	return l.client.Exec(ctx, pod.Namespace, pod.Name, container, argv, sandbox.ExecIO{Stdout: stdout, Stderr: stderr})
}
