package cli

import "fmt"

// ExitError is the exit code that the program is to end with. Whoever returns it has said what there is to say.
type ExitError struct{ Code int }

func (e *ExitError) Error() string { return fmt.Sprintf("exit code %d", e.Code) }
