// pgx with the URL of `env --format url`, or without one with PG*.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v4"
)

func main() {
	var answer string
	connection, err := pgx.Connect(context.Background(), os.Getenv("DATABASE_URL"))
	if err == nil {
		err = connection.QueryRow(context.Background(), os.Args[1]).Scan(&answer)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Print(answer)
}
