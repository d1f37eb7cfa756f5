package cli

// ExitError ends a command with an exit code of its own. Whoever returns one has printed what there is to say, unless Err says more.
type ExitError struct {
	Code int
	Err  error
}

// Error is empty when everything has been said.
func (e *ExitError) Error() string {
	if e.Err == nil {
		return ""
	}
	return e.Err.Error()
}

// Unwrap is the cause.
func (e *ExitError) Unwrap() error { return e.Err }
