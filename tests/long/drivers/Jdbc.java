// pgjdbc with the URL of `env --format jdbc`.
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.sql.DriverManager;

class Jdbc {
    public static void main(String[] arguments) throws Exception {
        try (var connection = DriverManager.getConnection(System.getenv("JDBC_URL"));
                var answer = connection.createStatement().executeQuery(arguments[0])) {
            answer.next();
            new PrintStream(System.out, true, StandardCharsets.UTF_8).print(answer.getString(1));
        }
    }
}
