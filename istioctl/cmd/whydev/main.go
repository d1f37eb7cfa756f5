package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	whycmd "github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/why"
)

func main() {
	g := &cli.Globals{}
	root := &cobra.Command{Use: "istioctl", SilenceUsage: true, SilenceErrors: true}
	sub := whycmd.New(g)
	g.Add(sub.PersistentFlags())
	g.AddMesh(sub.PersistentFlags())
	root.AddCommand(sub)
	err := root.Execute()
	var exit *cli.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.Code)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(3)
	}
}
