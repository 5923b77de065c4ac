// lib/pq with the URL of `env --format url`, or without one with PG*.
package main

import (
	"database/sql"
	"fmt"
	"os"

	_ "github.com/lib/pq"
)

func main() {
	var answer string
	database, err := sql.Open("postgres", os.Getenv("DATABASE_URL"))
	if err == nil {
		err = database.QueryRow(os.Args[1]).Scan(&answer)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Print(answer)
}
