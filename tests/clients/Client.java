// The facts that tests/db/test_clients.py asks of JDBC; see there. Run as: java -cp <driver> Client.java
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.math.BigDecimal;
import java.sql.Array;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.OffsetDateTime;
import java.util.Properties;
import org.postgresql.util.PGInterval;
import org.postgresql.util.PSQLException;

public class Client {
    static void say(String name, Object value) {
        System.out.println(name + "\t" + value);
        System.out.flush();
    }

    public static void main(String[] arguments) throws Exception {
        Properties login = new Properties();
        login.setProperty("user", System.getenv("PGUSER"));
        login.setProperty("password", System.getenv("PGPASSWORD"));
        login.setProperty("sslmode", System.getenv("PGSSLMODE"));
        login.setProperty("sslrootcert", System.getenv("PGSSLROOTCERT"));
        String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT")
            + "/" + System.getenv("PGDATABASE");
        try (Connection db = DriverManager.getConnection(url, login); Statement ask = db.createStatement()) {
            ResultSet row = ask.executeQuery(System.getenv("TYPES"));
            row.next();
            say("ts", row.getObject("ts", OffsetDateTime.class).toInstant());
            say("n", row.getObject("n", BigDecimal.class).toPlainString());
            PGInterval length = (PGInterval) row.getObject("i");
            say("i", length.getDays() * 86400 + length.getHours() * 3600 + length.getMinutes() * 60
                + length.getSeconds());
            Array list = row.getArray("a");
            Double[] values = (Double[]) list.getArray();
            say("a", values[0] + " " + values[1] + " " + values[2] + " " + values[3]);
            say("nan", row.getDouble("nan"));
            say("inf", row.getDouble("inf"));
            say("nothing", row.getObject("nothing") == null ? "null" : "something");
            say("pair", row.getString("pair"));
            try {
                ask.executeQuery(System.getenv("WRONG"));
            } catch (PSQLException wrong) {
                say("state", wrong.getSQLState());
                say("hint", wrong.getServerErrorMessage().getHint() == null ? "none" : "told");
            }
            PreparedStatement version = db.prepareStatement(System.getenv("PREPARED").replace("$1", "?"));
            ((org.postgresql.PGStatement) version).setPrepareThreshold(1);
            BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
            for (String name : new String[] {"before", "after"}) {
                version.setObject(1, OffsetDateTime.parse(System.getenv("WHEN")));
                ResultSet found = version.executeQuery();
                found.next();
                say(name, found.getLong(1));
                if (name.equals("before")) {
                    in.readLine();
                }
            }
            try {
                ask.setQueryTimeout(1);
                ask.executeQuery("select pg_sleep(60)");
            } catch (SQLException ended) {
                say("canceled", ended.getSQLState());
            }
        }
    }
}
